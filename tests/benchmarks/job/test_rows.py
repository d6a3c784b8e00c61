"""The figures about the rows that a contender has written."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.job.rows import Rows, compare, largest_chunk, our_steady_rate, read_theirs, steady_rate
from pipeline.chunks.chunk import CHUNK_MAX_BYTES, CHUNK_MAX_RECORDS


def test_lost_and_doubled_rows_and_other_labels_are_counted():
    ours = Rows(names=["a", "b", "c"], label_ids=[1, 2, 3])
    theirs = Rows(names=["a", "b", "b"], label_ids=[1, 5, 5])
    expected = {"rows": 3, "rows_lost": 1, "rows_too_many": 1, "labels_that_differ": 1}
    assert compare(["a", "b", "c"], theirs, ours) == expected


def test_rows_of_images_that_nobody_asked_for_are_too_many():
    rows = Rows(names=["a", "z"], label_ids=[1, 1])
    assert compare(["a"], rows, rows) == {"rows": 2, "rows_lost": 0, "rows_too_many": 1, "labels_that_differ": 0}


def test_the_steady_rate_leaves_out_the_first_images_and_the_time_before_them():
    assert steady_rate([10.0, 10.0, 12.0, 14.0]) == pytest.approx(0.5)
    assert steady_rate([10.0, 10.0]) == 0.0


def test_our_steady_rate_leaves_out_a_chunk():
    assert our_steady_rate({"steady_images_per_s": 10.0, "listed": 100}, 20) == pytest.approx(8.0)
    assert our_steady_rate({"steady_images_per_s": 0.0, "listed": 0}, 0) == 0.0


def test_the_largest_chunk_is_bounded_by_bytes_and_by_records():
    third = CHUNK_MAX_BYTES // 3
    assert largest_chunk([third] * 10) == 3
    assert largest_chunk([2 * CHUNK_MAX_BYTES, third, third]) == 2
    assert largest_chunk([1] * 1000) == CHUNK_MAX_RECORDS
    assert largest_chunk([]) == 0


def test_a_peers_rows_are_those_of_all_its_files(tmp_path):
    for name, times in (("a", [1.0, 2.0]), ("b", [3.0])):
        paths = [f"/somewhere/{name}-{when}.jpg" for when in times]
        table = pa.table({"path": paths, "label_id": [7] * len(times), "score": [0.5] * len(times), "done_at": times})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    rows, done_at = read_theirs(tmp_path)
    assert rows == Rows(names=["a-1.0.jpg", "a-2.0.jpg", "b-3.0.jpg"], label_ids=[7, 7, 7])
    assert done_at == [1.0, 2.0, 3.0]
