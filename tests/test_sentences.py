"""The mechanical smells of sentences: the finder finds each of them, and none is left in the project."""

from pathlib import Path

import pytest

from tests.support.sentences import smells, smells_of_page, smells_of_python, smells_of_tests

ROOT = Path(__file__).resolve().parent.parent
PLACES = ("model", "pipeline", "jobs", "infra", "examples", "benchmarks", "docs", "README.md", "tests")
ROOMS = sorted(
    str(path.relative_to(ROOT))
    for top in ("model", "pipeline", "jobs")
    for path in (ROOT / top).iterdir()
    if path.suffix == ".py" or (path / "__init__.py").is_file()
)


@pytest.mark.parametrize("place", [*ROOMS, *(place for place in PLACES if place not in ("model", "pipeline", "jobs"))])
def test_no_sentence_smells(place: str) -> None:
    assert list(smells(ROOT / place)) == []


CLEAN = '''"""Chunks are counted, so that nothing is lost."""

LIMIT = 5
"""The most chunks that a process holds."""


class Counter:
    """A counter of chunks.

    Attributes:
        count: Chunks that were counted so far.
    """

    def add(self, number: int) -> None:
        """Adds chunks; whatever `tell` returned is left as it is."""
        # The sum is what the report shows; `told` is a name here.
        if number < 0:
            raise ValueError(f"{number} is less than what a counter can count")
        logger.info("counter.added number=%d", number)
'''


def found_in(tmp_path: Path, text: str, **options: bool) -> list[str]:
    path = tmp_path / "file.py"
    path.write_text(text)
    return [smell.removeprefix(f"{path}:") for smell in smells_of_python(path, **options)]


def test_plain_sentences_do_not_smell(tmp_path: Path) -> None:
    assert found_in(tmp_path, CLEAN, names=True) == []


@pytest.mark.parametrize(
    ("old", "new", "smell"),
    [
        ("Chunks are counted, so", "What is counted, so", "1: a first sentence begins with 'What'"),
        ("The most chunks that", "Of chunks the most that", "4: a first sentence begins with 'Of'"),
        ("A counter of chunks.", "Whose chunks are counted.", "8: a first sentence begins with 'Whose'"),
        ("A counter of chunks.", "This counts chunks.", "8: a docstring opens with 'This'"),
        ("Adds chunks;", "It adds chunks;", "15: a docstring opens with 'It'"),
        ("count: Chunks that", "count: that", "11: a note begins with 'that'"),
        ("count: Chunks that", "count, sum: of the chunks that", "11: a note begins with 'of'"),
        ("count: Chunks that", "count: it says which chunks", "11: a note begins with 'it'"),
        ("nothing is lost", "no chunk is counted in vain", "1: the word 'in vain'"),
        ("The sum is what", "Whoever asks finds what", "16: the word 'Whoever'"),
        ("less than what", "told, but less than what", "18: the word 'told'"),
        ("counter.added", "counter tells", "19: the word 'tells'"),
        ("def add(self", "def tell(self", "14: the name 'tell'"),
        ("number: int", "number_told: int", "14: the name 'number_told'"),
        ("class Counter", "class ChunkTeller", "7: the name 'ChunkTeller'"),
    ],
)
def test_a_smell_is_found_where_it_is(tmp_path: Path, old: str, new: str, smell: str) -> None:
    assert CLEAN.count(old) == 1
    assert found_in(tmp_path, CLEAN.replace(old, new), names=True) == [smell]


def test_the_help_of_a_flag_is_read_as_well(tmp_path: Path) -> None:
    text = 'parser.add_argument("--notify-url", help="webhook that is told the end")\n'
    assert found_in(tmp_path, text) == ["1: the word 'told'"]


def test_a_file_may_have_the_method_tell(tmp_path: Path) -> None:
    text = "class Reader:\n    def seek(self, position): ...\n    def tell(self): ...\n"
    assert found_in(tmp_path, text, names=True) == []
    assert found_in(tmp_path, text.replace("seek", "read"), names=True) == ["3: the name 'tell'"]


def test_names_outside_the_product_are_left_alone(tmp_path: Path) -> None:
    assert found_in(tmp_path, "def told(): ...\n") == []


def test_of_a_test_the_sentence_at_its_head_is_read(tmp_path: Path) -> None:
    path = tmp_path / "test_file.py"
    path.write_text('"""What is counted."""\n\n\ndef test_a_user_is_told():\n    """It is told."""\n')
    assert list(smells_of_tests(path)) == [f"{path}:1: a first sentence begins with 'What'"]


def test_a_page_is_read_without_its_code(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("# Counting\n\nUse `tell`.\n\n```\ntold\n```\n\nThe log tells it.\n")
    assert list(smells_of_page(path)) == [f"{path}:9: the word 'tells'"]
