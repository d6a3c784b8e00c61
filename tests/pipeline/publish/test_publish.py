"""Publication on a real store: every write has a condition, and a late writer changes nothing."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.network.config import VARIANTS
from model.network.cost import count_macs
from pipeline.account.breakdown import Breakdown
from pipeline.chunks.chunk import set_columns
from pipeline.chunks.columns import CLASSIFY_COLUMNS, output_schema
from pipeline.errors import LeaseLostError, OutputError
from pipeline.output.layout import DATA
from pipeline.output.published import list_files, published_files
from pipeline.publish import slice_file
from pipeline.publish.config import SinkConfig
from pipeline.publish.publish import empty_file, publish_new, publish_rewrite, receipt_read_back
from pipeline.publish.spill import on_disk
from pipeline.store.config import StoreConfig
from pipeline.store.errors import ChangedError, ExistsError
from pipeline.store.store_path import StorePath

STORE = StoreConfig()
NAME = "x-0123456789abcdef-00000.parquet"
NETWORK = VARIANTS["b0"]


@pytest.fixture
def config(root):
    """A sink on the disk and on a real S3 server."""
    schema = output_schema(CLASSIFY_COLUMNS, ())
    return SinkConfig(output=StorePath(root, STORE), schema=schema, identity="i", run_id="r", network=NETWORK)


@pytest.fixture
def publish_four(config, answered_chunk):
    """Publishes slice 0 of four rows, row 1 a failed one; returns the file."""
    chunk = answered_chunk(0, 4, slice_rows=4, failed=(1,))
    publish_new([chunk], chunk.header, config)
    return only_file(config)


def only_file(config):
    (file,) = published_files(config.output)
    return file


def table(config, name=NAME):
    path = config.output.join(DATA, name)
    info = path.head()
    with path.open(size=info.size, etag=info.etag) as source:
        return pq.read_table(source)


def rewrite_of(file, answered_chunk, rows, pruned=(), etag=None, **changes):
    """The chunk that exchanges some rows of a file."""
    return answered_chunk(
        rows[0] if rows else file.first_row, len(rows), slice_rows=len(rows), pruned=tuple(pruned),
        overwrites=etag or file.etag, file=file.file, slice_last_row=file.last_row, **changes,
    )  # fmt: skip


def test_a_large_slice_is_made_on_the_disk_and_holds_the_same_rows(config, answered_chunk, monkeypatch):
    """On S3 too, so the file goes out as its bytes stand on the disk."""
    made = []
    monkeypatch.setattr(slice_file, "_MEMORY_BYTES", 0)
    monkeypatch.setattr(slice_file, "on_disk_if_it_can", lambda write: made.append(write) or on_disk(write))
    chunk = answered_chunk(0, 5, slice_rows=5, failed=(2,))
    receipt = publish_new([chunk], chunk.header, config)
    assert len(made) == 1
    assert table(config).equals(chunk.rows.select(config.schema.names))
    assert only_file(config).footer == receipt.footer


def test_a_receipt_that_nobody_heard_of_is_read_back_from_the_file(config, answered_chunk):
    chunk = answered_chunk(0, 5, slice_rows=5, failed=(2,))
    told = publish_new([chunk], chunk.header, config)
    read = receipt_read_back(only_file(config), config)
    assert (read.file, read.etag, read.footer, read.bytes_out) == (told.file, told.etag, told.footer, told.bytes_out)
    assert (read.put_s, read.work) == (0.0, ())
    # The chunk's are made up; what a file's rows cost is reckoned from their sizes.
    bands = [replace(band, macs=band.images * count_macs(NETWORK, 30, 40)) for band in told.breakdown.bands]
    assert sum(band.images for band in bands) == 4
    same = {"peak_gflops": 0.0, "shards": {}, "bands": bands}
    assert replace(read.breakdown, shards={}) == replace(told.breakdown, **same)
    assert [images for _, images in read.breakdown.shards.values()] == [5]


def test_of_a_rewrite_that_nobody_heard_of_the_sums_alone_are_read_back(config, publish_four, answered_chunk):
    chunk = rewrite_of(publish_four, answered_chunk, [1])
    told = publish_rewrite([chunk], chunk.header, config)
    read = receipt_read_back(only_file(config), config)
    assert (read.footer, read.bytes_out, read.breakdown) == (told.footer, told.bytes_out, Breakdown())


def test_rows_of_maps_lie_in_row_groups_that_a_reader_can_hold(config, answered_chunk, monkeypatch):
    chunk = answered_chunk(0, 6, slice_rows=6)
    monkeypatch.setattr(slice_file, "_ROW_GROUP_BYTES", chunk.rows.select(config.schema.names).nbytes * 2 // 5)
    publish_new([chunk], chunk.header, config)
    path = config.output.join(DATA, NAME)
    info = path.head()
    with path.open(size=info.size, etag=info.etag) as source:
        assert pq.ParquetFile(source).metadata.num_row_groups == 3


def test_thumbnails_are_told_to_the_driver_and_stand_in_no_file(config, answered_chunk):
    plain = answered_chunk(0, 4, slice_rows=4, failed=(1,))
    values = pa.array([b"\xff\xd8\xff\xd9\0\0", None, None, b"\xff\xd8\xff\xd9\0\0"], pa.binary())
    chunk = replace(plain, rows=set_columns(plain.rows, {"sample_jpeg": values}))
    receipt = publish_new([chunk], chunk.header, config)
    assert {sample.image_id for sample in receipt.breakdown.samples} == {"s3://b/x.tar#0", "s3://b/x.tar#3"}
    assert receipt.bare().breakdown.samples == ()
    assert table(config).schema.names == config.schema.names
    assert table(config).equals(plain.rows.select(config.schema.names))


def lose_answer(monkeypatch, error):
    """The next PUT arrives, and its answer does not."""
    real = StorePath.put

    def put_once(*args, **conditions):
        monkeypatch.setattr(StorePath, "put", real)
        real(*args, **conditions)
        raise error("the answer was lost, and the next one says so")

    monkeypatch.setattr(StorePath, "put", put_once)


# New slices.


def test_a_slice_is_created_once_and_the_second_attempt_changes_nothing(config, answered_chunk):
    chunk = answered_chunk(0, 2, slice_rows=2)
    first = publish_new([chunk], chunk.header, config)
    assert (first.file, first.etag) == (NAME, only_file(config).etag)
    assert publish_new([chunk], chunk.header, config) is None
    assert only_file(config).etag == first.etag


def test_an_answer_that_was_lost_is_known_by_the_nonce(config, answered_chunk, monkeypatch):
    lose_answer(monkeypatch, ExistsError)
    chunk = answered_chunk(0, 2, slice_rows=2)
    receipt = publish_new([chunk], chunk.header, config)
    assert receipt.etag == only_file(config).etag


def test_another_slice_under_the_name_is_refused(config, answered_chunk):
    chunk = answered_chunk(0, 2, slice_rows=2)
    publish_new([chunk], replace(chunk.header, shard="s3://b/other.tar"), config)
    with pytest.raises(OutputError, match="holds something else; move it away"):
        publish_new([chunk], chunk.header, config)


def test_rows_without_a_place_in_the_output_are_noted(config, answered_chunk):
    chunk = answered_chunk(0, 2, slice_rows=2, slice_last_row=3, pruned=(2, 3))
    publish_new([chunk], chunk.header, config)
    file = only_file(config)
    assert (file.first_row, file.last_row, file.rows, file.pruned) == (0, 3, 2, (2, 3))


# Emptied files.


def test_an_emptied_file_keeps_its_name_and_has_no_rows(config, publish_four):
    receipt = empty_file(publish_four, "e2", config)
    assert table(config).num_rows == 0
    assert table(config).schema.names == list(config.schema.names)
    file = only_file(config)
    assert (file.etag, file.emptied, file.source_etag, file.rows) == (receipt.etag, True, "e2", 0)


def test_only_the_version_that_it_awaits_fills_an_emptied_file(config, publish_four, answered_chunk):
    empty_file(publish_four, "e2", config)
    late = answered_chunk(0, 4, slice_rows=4)
    assert publish_new([late], late.header, config) is None
    assert only_file(config).emptied
    new = answered_chunk(0, 3, slice_rows=3, source_etag="e2")
    assert publish_new([new], new.header, config).etag == only_file(config).etag
    assert (only_file(config).emptied, table(config).num_rows) == (False, 3)
    # And once it is filled, it is as any other.
    assert publish_new([new], new.header, config) is None


def test_a_file_that_awaits_nothing_is_never_filled(config, publish_four, answered_chunk):
    empty_file(publish_four, None, config)
    late = answered_chunk(0, 4, slice_rows=4)
    assert publish_new([late], late.header, config) is None
    assert only_file(config).emptied


def test_a_file_that_changed_meanwhile_is_not_emptied(config, publish_four):
    assert empty_file(replace(publish_four, etag='"other"'), "e2", config) is None
    assert only_file(config).rows == 4


def test_an_emptying_whose_answer_was_lost_is_known(config, publish_four, monkeypatch):
    lose_answer(monkeypatch, ChangedError)
    assert empty_file(publish_four, "e2", config).etag == only_file(config).etag


# Rewrites.


def test_rows_are_exchanged_and_taken_out_and_the_others_stay(config, publish_four, answered_chunk):
    chunk = rewrite_of(publish_four, answered_chunk, [1], pruned=[3], attempt="bbbbbbbb")
    receipt = publish_rewrite([chunk], chunk.header, config)
    rows = table(config).to_pylist()
    assert [(row["row"], row["status"]) for row in rows] == [(0, "ok"), (1, "ok"), (2, "ok")]
    file = only_file(config)
    assert (file.etag, file.pruned, file.rows, file.failed) == (receipt.etag, (3,), 3, 0)
    # The file's account is that of its rows, the run's that of what it did.
    assert file.footer.totals.macs == 2 * count_macs(NETWORK, 30, 40) + 1000
    assert (file.footer.own.listed, file.footer.own.macs) == (1, 1000)


def test_rows_can_be_taken_out_without_reading_any(config, publish_four, answered_chunk):
    chunk = rewrite_of(publish_four, answered_chunk, [], pruned=[0, 1])
    publish_rewrite([chunk], chunk.header, config)
    assert table(config).column("row").to_pylist() == [2, 3]
    assert only_file(config).footer.own.listed == 0


def test_a_rewrite_that_was_planned_on_another_version_changes_nothing(config, publish_four, answered_chunk):
    first = rewrite_of(publish_four, answered_chunk, [1])
    publish_rewrite([first], first.header, config)
    there = only_file(config)
    late = rewrite_of(publish_four, answered_chunk, [], pruned=[0, 2])
    assert publish_rewrite([late], late.header, config) is None
    assert only_file(config) == there


def test_a_rewrite_that_is_overtaken_between_reading_and_writing_changes_nothing(
    config, publish_four, answered_chunk, monkeypatch
):
    chunk = rewrite_of(publish_four, answered_chunk, [1])
    real = StorePath.read

    def read_and_be_overtaken(*args, **conditions):
        body = real(*args, **conditions)
        other = rewrite_of(publish_four, answered_chunk, [], pruned=[0])
        monkeypatch.setattr(StorePath, "read", real)
        publish_rewrite([other], other.header, config)
        return body

    monkeypatch.setattr(StorePath, "read", read_and_be_overtaken)
    assert publish_rewrite([chunk], chunk.header, config) is None
    assert only_file(config).pruned == (0,)


def test_a_rewrite_whose_answer_was_lost_is_known_by_the_nonce(config, publish_four, answered_chunk, monkeypatch):
    lose_answer(monkeypatch, ChangedError)
    chunk = rewrite_of(publish_four, answered_chunk, [1])
    assert publish_rewrite([chunk], chunk.header, config).etag == only_file(config).etag


# The fence.


def test_whoever_lost_the_output_writes_nothing_more(config, publish_four, answered_chunk):
    def refuse():
        raise LeaseLostError("the output went to another run")

    fenced = replace(config, may_write=refuse)
    new, rewrite = answered_chunk(4, 2, slice_number=1, slice_first_row=4, slice_rows=2), None
    rewrite = rewrite_of(publish_four, answered_chunk, [1])
    for write in (
        lambda: publish_new([new], new.header, fenced),
        lambda: publish_rewrite([rewrite], rewrite.header, fenced),
        lambda: empty_file(publish_four, None, fenced),
    ):
        with pytest.raises(LeaseLostError):
            write()
    assert only_file(config) == publish_four


def test_what_is_no_file_of_ours_under_the_name_is_refused(config, answered_chunk):
    config.output.join(DATA, NAME).put(b"something else, long enough to have a tail")
    chunk = answered_chunk(0, 2, slice_rows=2)
    with pytest.raises(OutputError, match="is none"):
        publish_new([chunk], chunk.header, config)
    assert list(list_files(config.output)) == [NAME]
