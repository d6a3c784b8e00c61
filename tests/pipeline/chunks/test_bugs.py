"""The frame that raised an exception, and not its type, separates a bug from bad data."""

import tarfile

import pytest

from pipeline.chunks.bugs import bug_in, explain, find_bug
from pipeline.store.errors import StoreError
from tests.support.planted_bugs import planted_bug

PLACE = "pipeline/decode/to_rgb.py:41"


def caught(function, *arguments):
    with pytest.raises(Exception) as info:
        function(*arguments)
    return info.value


@pytest.mark.parametrize(
    "error", ["AttributeError", "TypeError", "AssertionError", "ValueError", "KeyError", "RuntimeError"]
)
def test_whatever_python_raises_in_a_frame_of_ours_is_a_bug(error):
    found = caught(planted_bug("pipeline/decode/to_rgb.py", error=error))
    assert find_bug(found) == PLACE
    assert explain(found, "PNG").startswith(f"bug at {PLACE}: {error}: ")
    assert explain(found, "PNG").endswith(
        "planted bug 4711' (PNG)" if error == "KeyError" else "planted bug 4711 (PNG)"
    )
    assert bug_in(explain(found, "PNG")) == PLACE


@pytest.mark.parametrize("file", ["model/packed.py", "jobs/cli/command.py", "pipeline/read/cut.py"])
def test_all_packages_of_ours_can_have_bugs(file):
    assert find_bug(caught(planted_bug(file, 7))) == f"{file}:7"


@pytest.mark.parametrize("error", ["TypeError", "AssertionError", "AttributeError"])
def test_what_a_library_raises_is_bad_data_whatever_its_type(error):
    """Pillow and Arrow raise such errors over broken bytes; the frames above them are ours."""
    found = caught(planted_bug(".venv/lib/PIL/TiffImagePlugin.py", error=error))
    assert find_bug(found) is None
    assert explain(found, "TIFF") == f"TIFF: {error}: planted bug 4711"
    assert bug_in(explain(found, "TIFF")) is None


def test_a_library_that_calls_a_function_of_ours_is_not_to_blame_for_its_bug():
    assert find_bug(caught(lambda: sorted([2, 1], key=planted_bug("pipeline/decode/to_rgb.py")))) == PLACE


@pytest.mark.parametrize("error", ["OSError", "EOFError", "MemoryError", "FileNotFoundError"])
def test_a_machine_that_fails_and_data_that_ends_are_no_bugs(error):
    assert find_bug(caught(planted_bug("pipeline/store/local_disk.py", error=error))) is None


def test_classes_of_ours_and_of_libraries_are_raised_on_purpose():
    for error in ("StoreError", "ReadError"):
        function = planted_bug("pipeline/inputs/tar.py", error=error)
        function.__globals__.update(StoreError=StoreError, ReadError=tarfile.ReadError)
        assert find_bug(caught(function)) is None


@pytest.mark.parametrize("message", [None, "", "PNG: bug at pipeline/decode/to_rgb.py:41: x", "bug at home.py:4: x"])
def test_only_a_message_that_begins_with_a_bug_is_about_one(message):
    assert bug_in(message) is None


def test_a_message_is_the_same_on_every_attempt():
    def fail():
        raise ValueError(f"no {object()}" + "\nx" * 300)

    text = explain(caught(fail))
    assert text.startswith("ValueError: no <object object> x x")
    assert len(text) == 150
