"""The precision of a run, and the log line about it."""

import pytest

from pipeline.config import precision
from pipeline.config.precision import choose_precision, multiplies_bf16
from pipeline.errors import ConfigError


@pytest.fixture(params=[True, False])
def is_able(request, monkeypatch):
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: request.param)
    return request.param


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
@pytest.mark.parametrize("asked", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("stored", [None, "fp32", "bf16"])
def test_what_is_asked_for_is_taken(is_able, asked, stored, device):
    assert choose_precision(asked, stored, device) == (asked, "asked for")


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
@pytest.mark.parametrize("stored", ["fp32", "bf16", "fp16"])
def test_an_output_keeps_its_precision_on_any_machine(is_able, stored, device):
    chosen, reason = choose_precision("auto", stored, device)
    assert (chosen, reason) == (stored, "the output's rows so far have it")


def test_a_new_output_gets_what_the_device_is_quick_at(is_able):
    assert choose_precision("auto", None, "cuda")[0] == "bf16"
    for device in ("auto", "cpu"):
        chosen, reason = choose_precision("auto", None, device)
        assert chosen == ("bf16" if is_able else "fp32")
        assert ("does not" in reason) != is_able
        assert ("--precision bf16" in reason) == (not is_able and device == "auto")


def test_another_precision_is_refused():
    with pytest.raises(ConfigError, match="--precision must be auto, fp32, bf16, fp16, not 'int8'"):
        choose_precision("int8", None, "cpu")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu sse avx512f avx512_bf16 vaes\n", True),
        ("processor\t: 0\nflags\t\t: fpu amx_bf16\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\n", True),
        ("processor\t: 0\nflags\t\t: fpu sse avx2 avx512f\nbugs : bf16\n", False),
        ("", False),
    ],
)
def test_the_processor_says_whether_it_multiplies_bf16(tmp_path, text, expected):
    (tmp_path / "cpuinfo").write_text(text)
    assert multiplies_bf16(tmp_path / "cpuinfo") == expected


def test_a_machine_that_does_not_say_is_taken_not_to(tmp_path):
    assert not multiplies_bf16(tmp_path / "missing")
