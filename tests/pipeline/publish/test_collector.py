import errno
import itertools
import random
import tempfile
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.network.config import VARIANTS
from pipeline.chunks.chunk import set_columns
from pipeline.chunks.columns import CLASSIFY_COLUMNS, output_schema
from pipeline.output.footer import Footer
from pipeline.output.published import published_files
from pipeline.publish.collector import Collector
from pipeline.publish.config import SinkConfig
from pipeline.store.config import StoreConfig
from pipeline.store.errors import ExistsError, StoreError
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri

STORE = StoreConfig()
FIRST, LAST = "x-0123456789abcdef-00000.parquet", "x-0123456789abcdef-00000-end.parquet"


@pytest.fixture
def collector(tmp_path):
    return make_collector(tmp_path)


def make_collector(folder, **options):
    schema = output_schema(CLASSIFY_COLUMNS, ())
    config = SinkConfig(
        output=StorePath(canonical_uri(str(folder)), STORE),
        schema=schema,
        identity="i",
        run_id="r",
        network=VARIANTS["b0"],
    )
    collector = Collector(config, **options)
    collector.start_pass(1)
    return collector


def files(folder):
    return sorted(path.name for path in (folder / "data").glob("*")) if (folder / "data").exists() else []


def test_a_slice_is_published_when_its_last_row_has_come_in_any_order(tmp_path, answered_chunk):
    for order in itertools.permutations(range(3)):
        folder = tmp_path / "".join(map(str, order))
        collector = make_collector(folder)
        chunks = [answered_chunk(0, 3), answered_chunk(3, 3), answered_chunk(6, 2, slice_rows=8, end=True)]
        for index in order[:-1]:
            collector.add(chunks[index].to_table())
            assert files(folder) == []
        collector.add(chunks[order[-1]].to_table())
        assert files(folder) == [LAST]
        assert pq.read_table(folder / "data" / LAST).column("row").to_pylist() == list(range(8))


def test_a_file_has_the_promised_columns_and_a_footer_that_counts_its_rows(tmp_path, collector, answered_chunk):
    collector.add(answered_chunk(0, 5, slice_rows=5, failed=(1, 3)).to_table())
    table = pq.read_table(tmp_path / "data" / FIRST)
    assert table.schema.names == output_schema(CLASSIFY_COLUMNS, ()).names
    (file,) = published_files(StorePath(canonical_uri(str(tmp_path)), STORE))
    totals = file.footer.totals
    assert (totals.listed, totals.ok, totals.failed) == (5, 3, 2)
    assert totals.failed_by_code == {"decode.corrupt": 2}
    assert (totals.bytes, totals.pixels, totals.macs) == (500, 3 * 1200, 3000)
    assert (totals.seconds["compute"], totals.counts["chunks"]) == (0.5, 1)
    assert (file.footer.first_row, file.footer.last_row, file.footer.run_id) == (0, 4, "r")


def test_a_replayed_chunk_is_dropped_and_not_counted_twice(tmp_path, collector, answered_chunk):
    for chunk in (answered_chunk(0, 2), answered_chunk(0, 2, attempt="bbbbbbbb"), answered_chunk(2, 2, slice_rows=4)):
        collector.add(chunk.to_table())
    assert pq.read_table(tmp_path / "data" / FIRST).column("row").to_pylist() == [0, 1, 2, 3]
    assert collector.state().replayed_chunks == 1
    assert collector.state().arrived.listed == 4
    (receipt,) = collector.state().receipts
    assert receipt.footer.totals.seconds["read"] == 1.0


def test_any_order_and_any_repeats_give_the_same_rows(tmp_path, answered_chunk):
    rng = random.Random(7)
    chunks = [answered_chunk(i * 2, 2, slice_rows=20 if i == 9 else None, end=i == 9) for i in range(10)]
    for trial in range(20):
        folder = tmp_path / str(trial)
        collector = make_collector(folder)
        sent = chunks + rng.choices(chunks, k=8)
        rng.shuffle(sent)
        for chunk in sent:
            collector.add(chunk.to_table())
        assert files(folder) == [LAST]
        assert pq.read_table(folder / "data" / LAST).column("row").to_pylist() == list(range(20))


def test_chunks_of_another_pass_are_not_taken(tmp_path, collector, answered_chunk):
    collector.add(answered_chunk(0, 2).to_table())
    collector.start_pass(2)
    collector.add(answered_chunk(2, 2, slice_rows=4).to_table())
    collector.add(answered_chunk(2, 2, slice_rows=4, pass_number=2).to_table())
    assert files(tmp_path) == []
    collector.add(answered_chunk(0, 2, pass_number=2).to_table())
    assert files(tmp_path) == [FIRST]


def test_an_empty_shard_becomes_an_empty_file(tmp_path, collector, answered_chunk):
    collector.add(answered_chunk(0, 0, slice_rows=0, end=True).to_table())
    assert pq.read_table(tmp_path / "data" / LAST).num_rows == 0


def test_a_file_that_is_there_is_never_overwritten(tmp_path, answered_chunk):
    chunk = answered_chunk(0, 2, slice_rows=2).to_table()
    make_collector(tmp_path).add(chunk)
    before = (tmp_path / "data" / FIRST).read_bytes()
    late = make_collector(tmp_path)
    late.add(chunk)
    assert (tmp_path / "data" / FIRST).read_bytes() == before
    assert late.state().receipts == ()
    assert late.state().fatal is None


def test_an_own_put_whose_answer_was_lost_is_recognised(tmp_path, collector, answered_chunk, monkeypatch):
    def put_and_lose_the_answer(*args, **options):
        real_put(*args, **options)
        raise ExistsError("the name is taken")

    real_put = StorePath.put
    monkeypatch.setattr(StorePath, "put", put_and_lose_the_answer)
    collector.add(answered_chunk(0, 2, slice_rows=2).to_table())
    assert [receipt.file for receipt in collector.state().receipts] == [FIRST]


def test_a_foreign_file_under_our_name_is_fatal(tmp_path, collector, answered_chunk):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / FIRST).write_bytes(b"something else, long enough to have a tail")
    collector.add(answered_chunk(0, 2, slice_rows=2).to_table())
    assert "is none" in collector.state().fatal


def test_a_store_that_refuses_is_fatal_and_said(collector, answered_chunk, monkeypatch):
    def refuse(*args, **options):
        raise StoreError("no space left")

    monkeypatch.setattr(StorePath, "put", refuse)
    collector.add(answered_chunk(0, 2, slice_rows=2).to_table())
    assert "no space left" in collector.state().fatal


def test_what_is_too_much_for_memory_waits_on_the_disk_and_is_published_the_same(tmp_path, answered_chunk, monkeypatch):
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spool))
    chunks = [
        answered_chunk(row, 2, slice_rows=8 if row == 6 else None, failed=(3,), end=row == 6) for row in range(0, 8, 2)
    ]
    tables = {}
    for max_held_bytes in (2**30, 2 * chunks[0].rows.nbytes, 0):
        folder = tmp_path / str(max_held_bytes)
        collector = make_collector(folder, max_held_bytes=max_held_bytes)
        for chunk in chunks:
            collector.add(chunk.to_table())
            assert collector._held_bytes() <= max_held_bytes
        tables[max_held_bytes] = pq.read_table(folder / "data" / LAST)
        state = collector.state()
        assert (state.evicted_slices, state.arrived.listed, state.arrived.failed) == (0, 8, 1)
        assert (state.spilled_bytes == 0) == (max_held_bytes == 2**30)
        assert list(spool.iterdir()) == []  # their files have no names
    expected, *found = tables.values()
    assert [table.equals(expected) for table in found] == [True, True]


def test_where_the_disk_is_full_too_a_slice_is_let_go_and_not_half_published(tmp_path, answered_chunk, monkeypatch):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    collector = make_collector(tmp_path, max_held_bytes=1)
    collector.add(answered_chunk(0, 2).to_table())
    collector.add(answered_chunk(10, 2, slice_number=1, slice_first_row=10).to_table())
    assert collector.state().evicted_slices == 1
    collector.add(answered_chunk(2, 2, slice_rows=4).to_table())
    assert files(tmp_path) == []
    collector.add(answered_chunk(12, 2, slice_number=1, slice_first_row=10, slice_rows=4, end=True).to_table())
    assert files(tmp_path) == ["x-0123456789abcdef-00001-end.parquet"]


def test_receipts_are_given_from_an_index_on(collector, answered_chunk):
    for number in range(3):
        collector.add(answered_chunk(number, 1, slice_number=number, slice_first_row=number, slice_rows=1).to_table())
    assert [receipt.footer.slice for receipt in collector.state(1).receipts] == [1, 2]


def test_what_a_receipt_tells_beyond_its_footer_is_let_go_once_it_was_told(collector, answered_chunk):
    for number in range(3):
        chunk = answered_chunk(0, 2, slice_rows=2, slice_number=number)
        collector.add(chunk.to_table())
    told = collector.state(0).receipts
    assert all(receipt.work and receipt.breakdown.labels for receipt in told)
    assert [bool(receipt.work) for receipt in collector.state(2).receipts] == [True]
    assert [bool(receipt.work) for receipt in collector.state(0).receipts] == [False, False, True]
    assert [receipt.footer for receipt in collector.state(0).receipts] == [receipt.footer for receipt in told]


def test_rows_that_failed_because_of_a_bug_are_counted_by_its_file_and_line(tmp_path, collector, answered_chunk):
    place = "pipeline/decode/to_rgb.py:41"
    messages = [f"bug at {place}: TypeError: x (PNG)", None, f"PNG: bug at {place}: x", f"bug at {place}: KeyError: 1"]
    chunk = answered_chunk(0, 4, slice_rows=4, failed=(0, 2, 3))
    rows = set_columns(chunk.rows, {"error_message": pa.array(messages, pa.string())})
    collector.add(replace(chunk, rows=rows).to_table())
    collector.add(answered_chunk(4, 2, slice_number=1, slice_first_row=4, slice_rows=2, failed=(4,)).to_table())
    first, second = published_files(StorePath(canonical_uri(str(tmp_path)), STORE))
    assert first.footer.totals.failed_by_code == {"decode.corrupt": 3}
    assert first.footer.totals.failed_by_bug == {place: 2}
    assert (first.footer.totals + second.footer.totals).failed_by_bug == {place: 2}
    # A version that counts no bugs reads the footers of files without them.
    assert "failed_by_bug" in first.footer.to_json()
    assert "failed_by_bug" not in second.footer.to_json()
    assert Footer.from_json(second.footer.to_json()) == second.footer
