"""Parquet files made at random, odd cells and broken pages included: as many records as rows, whatever lies in them."""

import io

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inputs.parquet import num_rows, read_parquet
from pipeline.inputs.record import ReaderOptions, ShardEnd
from tests.support.parquets_at_random import parquet_files

OPTIONS = ReaderOptions(takes_image=bool, keep_columns=("x", "y"))


def read(data, start_row=0):
    *records, end = read_parquet(io.BytesIO(data), OPTIONS, start_row)
    assert end == ShardEnd(0)
    return records


@settings(max_examples=150, deadline=None)
@given(parquet_files(), st.integers(0, 45))
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
@given(parquet_files(), st.integers(0, 45), st.data())
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
