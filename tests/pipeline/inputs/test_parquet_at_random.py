"""Parquet files made at random, odd cells and broken pages included: as many records as rows, whatever lies in them."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inputs.parquet import num_rows, read_parquet
from pipeline.inputs.record import ReaderOptions, ShardEnd

RAW = st.one_of(st.none(), st.binary(max_size=6))
BIG = st.one_of(st.none(), st.integers(-(2**63) + 1, 2**63 - 1))
SMALL = st.one_of(st.none(), st.integers(-(2**31) + 1, 2**31 - 1))


def as_strings(kind):
    """Returns a function that makes strings of any bytes, which need be no UTF-8."""

    def make(values):
        raw = pa.array(values, pa.binary() if kind == pa.string() else pa.large_binary())
        return pa.Array.from_buffers(kind, len(raw), raw.buffers())

    return make


def as_view(kind, width):
    return lambda values: pa.array(values, pa.int64() if width == 64 else pa.int32()).view(kind)


def in_lists(make):
    return lambda values: pa.ListArray.from_arrays(list(range(len(values) + 1)), make(values))


KINDS = [
    (RAW, as_strings(pa.string())),
    (RAW, as_strings(pa.large_string())),
    (RAW, lambda values: as_strings(pa.string())(values).dictionary_encode()),
    (RAW, in_lists(as_strings(pa.string()))),
    (RAW, lambda values: pa.StructArray.from_arrays([as_strings(pa.string())(values)] * 2, ["a", "a"])),
    *[(BIG, as_view(pa.timestamp(unit, zone), 64)) for unit in ("ms", "us", "ns") for zone in (None, "UTC", "No/Zone")],
    *[(BIG, as_view(pa.duration(unit), 64)) for unit in ("s", "ms", "us", "ns")],
    *[(BIG, as_view(pa.time64(unit), 64)) for unit in ("us", "ns")],
    (SMALL, as_view(pa.date32(), 32)),
    (SMALL, as_view(pa.time32("ms"), 32)),
    (st.floats(width=64), lambda values: pa.array(values, pa.float64())),
    (st.booleans(), pa.array),
]


@st.composite
def files(draw):
    """(the images of a file, the file's bytes)."""
    rows = draw(st.integers(0, 40))
    images = draw(st.lists(st.one_of(st.none(), st.binary(max_size=20)), min_size=rows, max_size=rows))
    names, columns = ["image"], [pa.array(images, pa.binary())]
    if draw(st.booleans()):
        paths = as_strings(pa.string())(draw(st.lists(RAW, min_size=rows, max_size=rows)))
        columns = [pa.StructArray.from_arrays([columns[0], paths], ["bytes", "path"])]
    for _ in range(draw(st.integers(0, 4))):
        values, make = draw(st.sampled_from(KINDS))
        names.append(draw(st.sampled_from(["label", "Label", "category", "x", "y", "image"])))
        columns.append(make(draw(st.lists(values, min_size=rows, max_size=rows))))
    order = draw(st.permutations(range(len(columns)))) if names.count("image") == 1 else range(len(columns))
    table = pa.Table.from_arrays([columns[at] for at in order], [names[at] for at in order])
    buffer = io.BytesIO()
    options = {"compression": "none", "write_page_checksum": True, "use_dictionary": draw(st.booleans())}
    pq.write_table(table, buffer, row_group_size=draw(st.integers(1, 50)), **options)
    return images, buffer.getvalue()


OPTIONS = ReaderOptions(takes_image=bool, keep_columns=("x", "y"))


def read(data, start_row=0):
    *records, end = read_parquet(io.BytesIO(data), OPTIONS, start_row)
    assert end == ShardEnd(0)
    return records


@settings(max_examples=150, deadline=None)
@given(files(), st.integers(0, 45))
def test_there_is_one_record_for_each_row_wherever_reading_starts(made, start_row):
    images, data = made
    records = read(data)
    assert [record.key for record in records] == [str(row) for row in range(len(images))]
    assert [record.data for record in records] == images
    assert all((record.failure is None) == (record.data is not None) for record in records)
    assert num_rows(io.BytesIO(data), OPTIONS) == len(images)
    assert read(data, start_row) == records[start_row:]
    for record in records:
        for text in (record.true_label, *record.kept):
            assert text is None or text.encode().decode() == text


@settings(max_examples=150, deadline=None)
@given(files(), st.integers(0, 45), st.data())
def test_broken_pages_cost_records_only_as_failed_ones(made, start_row, data):
    images, whole = made
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    broken = bytearray(whole)
    pages = range(4, footer)
    for at in data.draw(st.lists(st.sampled_from(pages), max_size=3)) if pages else ():
        broken[at] ^= data.draw(st.integers(1, 255))
    records = read(bytes(broken))
    assert [record.key for record in records] == [str(row) for row in range(len(images))]
    assert read(bytes(broken)) == records
    assert read(bytes(broken), start_row) == records[start_row:]
