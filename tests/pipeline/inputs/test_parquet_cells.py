"""Odd cells of Parquet files: each costs its own value at most, and no row."""

import datetime
import decimal
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.chunks.failures import ErrorCode
from pipeline.inputs.parquet import read_parquet
from pipeline.inputs.record import ReaderOptions, ShardEnd
from pipeline.inputs.rules import FIRST_RULES, RULES

NUM_ROWS = 40
IMAGES = [b"image %d" % row for row in range(NUM_ROWS)]
ODD = 17


def read(columns, names=None, rules=RULES, start_row=0, **options):
    buffer = io.BytesIO()
    names = list(columns) if names is None else names
    columns = list(columns.values()) if isinstance(columns, dict) else columns
    pq.write_table(pa.Table.from_arrays([pa.array(column) for column in columns], names), buffer, **options)
    settings = ReaderOptions(takes_image=bool, keep_columns=("x", "absent"), rules=rules)
    *records, end = read_parquet(buffer, settings, start_row)
    assert end == ShardEnd(0)
    return records


BYTES = pa.binary()


def texts(kind=BYTES):
    """40 strings; the bytes of one string are no UTF-8."""
    raw = pa.array([b"caf\xe9" if row == ODD else b"%d" % row for row in range(NUM_ROWS)], kind)
    return pa.Array.from_buffers(pa.string() if kind == BYTES else pa.large_string(), NUM_ROWS, raw.buffers())


def one_each(values):
    return pa.ListArray.from_arrays(list(range(NUM_ROWS + 1)), values)


def numbers(kind, odd, width=64):
    values = [odd if row == ODD else row for row in range(NUM_ROWS)]
    return pa.array(values, pa.int64() if width == 64 else pa.int32()).view(kind)


ESCAPED = json.dumps("caf\\xe9")
UTF8 = {
    "string": (texts(), "caf\\xe9"),
    "large_string": (texts(pa.large_binary()), "caf\\xe9"),
    "dictionary": (texts().dictionary_encode(), "caf\\xe9"),
    "large dictionary": (texts(pa.large_binary()).dictionary_encode(), "caf\\xe9"),
    "json": (pa.ExtensionArray.from_storage(pa.json_(), texts()), "caf\\xe9"),
    "list": (one_each(texts()), f"[{ESCAPED}]"),
    "fixed list": (pa.FixedSizeListArray.from_arrays(texts(), 1), f"[{ESCAPED}]"),
    "struct": (pa.StructArray.from_arrays([texts(), pa.nulls(NUM_ROWS)], ["a", "b"]), f'{{"a": {ESCAPED}, "b": null}}'),
    "struct in list": (one_each(pa.StructArray.from_arrays([texts()], ["a"])), f'[{{"a": {ESCAPED}}}]'),
    "map": (
        pa.MapArray.from_arrays(list(range(NUM_ROWS + 1)), pa.array(["k"] * NUM_ROWS), texts()),
        f'[["k", {ESCAPED}]]',
    ),
}
FAR = 253_402_300_800  # seconds from 1970 to the year 10000
BEYOND_PYTHON = {
    "date32": (numbers(pa.date32(), 2**31 - 1, 32), "5881580-07-11"),
    "date32 before Christ": (numbers(pa.date32(), -(10**6), 32), "-768-02-04"),
    "date64": (numbers(pa.date64(), FAR * 1000), "10000-01-01"),
    "timestamp ms": (numbers(pa.timestamp("ms"), FAR * 10**3 + 1), "10000-01-01 00:00:00.001000"),
    "timestamp us": (numbers(pa.timestamp("us"), FAR * 10**6), "10000-01-01 00:00:00"),
    "timestamp us in a zone": (numbers(pa.timestamp("us", "Europe/Berlin"), FAR * 10**6), "10000-01-01 00:00:00+00:00"),
    "an unknown zone": (numbers(pa.timestamp("us", "Mars/Phobos"), 1), "1970-01-01 00:00:00.000001+00:00"),
    "an unknown zone, ns": (numbers(pa.timestamp("ns", "Mars/Phobos"), 1), "1970-01-01 00:00:00.000000001+00:00"),
    "time32": (numbers(pa.time32("ms"), 90_000_001, 32), "25:00:00.001000"),
    "time64": (numbers(pa.time64("ns"), 2**62), "1281023:53:38.427387904"),
    "negative time": (numbers(pa.time64("us"), -1), None),
    "duration s": (numbers(pa.duration("s"), 2**62), "53375995583650 days, 7:45:04"),
    "duration ms": (numbers(pa.duration("ms"), -(2**62)), "-53375995584 days, 8:23:32.096000"),
    "dates in lists": (one_each(numbers(pa.date32(), 2**31 - 1, 32)), '["5881580-07-11"]'),
    "two fields of one name": (
        pa.StructArray.from_arrays([pa.array(range(NUM_ROWS)), pa.nulls(NUM_ROWS)], ["a", "a"]),
        f'{{"a": {ODD}}}',
    ),
}


@pytest.mark.parametrize("options", [{}, {"row_group_size": 11}])
@pytest.mark.parametrize(
    ("column", "expected"), [pytest.param(*it, id=name) for name, it in (UTF8 | BEYOND_PYTHON).items()]
)
def test_an_odd_cell_costs_no_row_and_no_other_value(column, expected, options):
    records = read({"image": IMAGES, "x": column}, **options)
    assert [record.data for record in records] == IMAGES
    assert [record.key for record in records] == [str(row) for row in range(NUM_ROWS)]
    assert records[ODD].kept == (expected, None)
    assert all(record.kept[0] for row, record in enumerate(records) if row != ODD)
    assert read({"image": IMAGES, "x": column}, start_row=ODD, **options) == records[ODD:]


@pytest.mark.parametrize("column", [pytest.param(column, id=name) for name, (column, _) in UTF8.items()])
def test_under_the_first_rules_an_odd_cell_ends_the_file(column):
    *whole, last = read({"image": IMAGES, "x": column}, rules=FIRST_RULES)
    assert [record.key for record in whole] == [str(row) for row in range(16)]
    assert (last.key, last.failure.code) == (None, ErrorCode.SOURCE_TRUNCATED)
    assert last.failure.message.startswith("the file breaks off before row 16: UnicodeDecodeError")


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary"])
def test_bytes_that_are_no_utf8_in_a_label_are_escaped_as_those_of_a_tar_are(kind):
    records = read({"image": IMAGES, "label": UTF8[kind][0]})
    assert [record.true_label for record in records] == ["caf\\xe9" if n == ODD else str(n) for n in range(NUM_ROWS)]


def test_bytes_that_are_no_utf8_in_the_path_of_an_image_cost_nothing():
    files = pa.StructArray.from_arrays([pa.array(IMAGES), texts()], ["bytes", "path"])
    assert [record.data for record in read({"image": files})] == IMAGES
    *_, last = read({"image": files}, rules=FIRST_RULES)
    assert last.failure.code == ErrorCode.SOURCE_TRUNCATED


def test_a_string_view_may_hold_any_bytes():
    buffer = io.BytesIO()
    table = pa.table({"image": IMAGES, "x": pa.array(["cafX"] * NUM_ROWS, pa.string_view())})
    pq.write_table(table, buffer, compression="none", use_dictionary=["image"], write_statistics=False)
    data = buffer.getvalue().replace(b"cafX", b"caf\xe9", 1)
    settings = ReaderOptions(takes_image=bool, keep_columns=("x",))
    *records, _ = read_parquet(io.BytesIO(data), settings)
    assert [record.kept for record in records] == [("caf\\xe9",), *[("cafX",)] * (NUM_ROWS - 1)]


def test_the_year_9999_of_an_int96_is_no_other_year():
    """Spark writes such timestamps; Arrow's own default counts them in nanoseconds, which end in 2262."""
    when = pa.array([datetime.datetime(9999, 12, 31)] * NUM_ROWS, pa.timestamp("us"))
    records = read({"image": IMAGES, "x": when}, use_deprecated_int96_timestamps=True)
    assert {record.kept[0] for record in records} == {"9999-12-31 00:00:00"}


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([3.0, float("nan"), None, 3.5, -0.0], ["3", None, None, "3.5", "0"]),
        (pa.array([3.0, None], pa.float32()), ["3", None]),
        (pa.array(np.array([3.0, np.nan], np.float16)), ["3", None]),
        (pa.array([decimal.Decimal("3.00"), decimal.Decimal("3.50")]), ["3", "3.50"]),
        ([True, False], ["true", "false"]),
        (["3.0", "NaN"], ["3.0", "NaN"]),
    ],
)
def test_a_whole_number_is_a_label_without_a_fraction(column, expected):
    records = read({"image": [b""] * len(column), "label": column})
    assert [record.true_label for record in records] == expected


def test_under_the_first_rules_a_float_label_keeps_its_fraction():
    records = read({"image": [b"", b""], "label": [3.0, float("nan")]}, rules=FIRST_RULES)
    assert [record.true_label for record in records] == ["3.0", "NaN"]
