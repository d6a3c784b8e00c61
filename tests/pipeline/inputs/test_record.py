import datetime
import decimal

import pytest

from pipeline.chunks.bugs import error_text
from pipeline.inputs.record import as_text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", ""),
        ("ü\n", "ü\n"),
        ("\ud800", "\\ud800"),
        (b"caf\xc3\xa9", "café"),
        (b"\xff", "\\xff"),
        (True, "true"),
        (3, "3"),
        (0.5, "0.5"),
        (["a", None, b"b"], '["a", null, "b"]'),
        ({"a": {"ü": 1}}, '{"a": {"ü": 1}}'),
        ({"when": datetime.date(2020, 1, 2)}, '{"when": "2020-01-02"}'),
        (datetime.datetime(2020, 1, 2, 3, 4, 5), "2020-01-02 03:04:05"),
        (decimal.Decimal("1.50"), "1.50"),
    ],
)
def test_values_become_text(value, expected):
    assert as_text(value) == expected


def test_an_error_becomes_one_short_line_without_addresses():
    text = error_text(OSError("cannot identify <_io.BytesIO object at 0x7f55aa>\n" + "x\0" * 300))
    assert text.startswith("OSError: cannot identify <_io.BytesIO object> x x")
    assert len(text) == 150
    assert text.isprintable()
