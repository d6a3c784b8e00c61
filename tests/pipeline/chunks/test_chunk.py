import pyarrow as pa
import pytest

from pipeline.chunks.chunk import Chunk, set_columns
from pipeline.chunks.measures import MEASURES, NOTHING


def test_a_chunk_survives_its_ray_row(answered_chunk):
    chunk = answered_chunk(4, 3, slice_rows=7, end=True, failed=(5,))
    table = chunk.to_table()
    assert table.num_rows == 1
    back = Chunk.from_table(table)
    assert (back.header, back.attempt, back.measured) == (chunk.header, chunk.attempt, chunk.measured)
    assert back.rows.equals(chunk.rows)


def test_a_chunk_in_the_middle_of_a_block_is_found_by_slicing(answered_chunk):
    block = pa.concat_tables([answered_chunk(first, 2).to_table() for first in (0, 2, 4)])
    assert [Chunk.from_table(block.slice(i, 1)).header.first_row for i in range(3)] == [0, 2, 4]


def test_the_size_of_a_ray_row_does_not_depend_on_what_was_measured(answered_chunk):
    """Ray bundles by size and skips by index after a retry: a size that varies would lose and double chunks."""
    from dataclasses import replace

    quick = replace(answered_chunk(0, 2), measured={**NOTHING, "decode_s": 1e-9, "rows_s": 3.0}, attempt="00000000")
    slow = replace(answered_chunk(0, 2), measured=dict.fromkeys(MEASURES, 1234.5678901))
    assert quick.to_table().nbytes == slow.to_table().nbytes


def test_the_pixels_are_not_copied_on_the_way_in(answered_chunk):
    from dataclasses import replace

    pixels = pa.py_buffer(bytes(1000))
    table = replace(answered_chunk(0, 1), payload=pixels).to_table()
    assert table.column("payload").chunk(0).buffers()[2].address == pixels.address
    assert Chunk.from_table(table).payload.address == pixels.address


def test_two_rows_are_no_chunk(answered_chunk):
    with pytest.raises(ValueError, match="one row"):
        Chunk.from_table(pa.concat_tables([answered_chunk(0, 1).to_table()] * 2))


def test_columns_are_exchanged_in_place_and_appended_at_the_end():
    table = set_columns(pa.table({"a": [1], "b": [2]}), {"a": pa.array([3]), "c": pa.array([4])})
    assert table.to_pydict() == {"a": [3], "b": [2], "c": [4]}
