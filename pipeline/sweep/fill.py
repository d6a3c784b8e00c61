"""Publishes the output of one size from the rows of a pass, file by file, under the rules of every output.

A slice of the pass has the records of the same slice of the ordinary output, since the bounds of slices follow from the
sources and from settings that both have. What cannot be taken over, such as a source that changed meanwhile, is left to
the run, which classifies it as usual.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.chunks.chunk import Chunk, Header, set_columns
from pipeline.chunks.columns import AT_SIZES
from pipeline.chunks.measures import NOTHING
from pipeline.inputs.ids import loose_uri
from pipeline.output.layout import DATA, SliceName
from pipeline.output.published import PublishedFile, published_files
from pipeline.output.slice_chain import by_shard, chain_of
from pipeline.plan.planned_shard import PlannedShard
from pipeline.publish.config import SinkConfig
from pipeline.publish.publish import publish_new
from pipeline.publish.receipt import Receipt
from pipeline.publish.slice_file import macs_by_row
from pipeline.run.ledger import Ledger
from pipeline.run.remaining import missing
from pipeline.run.run import Run
from pipeline.run.step_settings import sink_config
from pipeline.sweep.passes import Place

logger = logging.getLogger(__name__)

_THREADS = 4


def fill_from_pass(run: Run, ledger: Ledger, place: Place) -> None:
    """Publishes the slices of a run that a pass has, and notes their receipts.

    Raises:
        StoreError, PipelineError: The pass cannot be read, or the output cannot be written.
    """
    todo = {shard.hash16: shard for shard in missing(run.plan, ledger.files)}
    files = by_shard(file for file in published_files(place.folder) if file.hash16 in todo)
    wanted = [
        (file, todo[hash16])
        for hash16, of_shard in files.items()
        for file in chain_of(of_shard).files
        if _is_missing(file, todo[hash16])
    ]
    config, num_taken = sink_config(run), 0
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="fill") as pool:
        for start in range(0, len(wanted), _THREADS):
            receipts = pool.map(partial(_publish, place=place, config=config), wanted[start : start + _THREADS])
            taken = [receipt for receipt in receipts if receipt is not None]
            num_taken += len(taken)
            ledger.take_receipts(taken)
    logger.info("slices.from_pass pass=%s slices=%d of=%d", place.folder.shown, num_taken, len(wanted))


def _is_missing(file: PublishedFile, shard: PlannedShard) -> bool:
    return (
        shard.action != "rewrite"
        and (shard.etag is None or shard.etag == file.source_etag)
        and all(done.slice != file.slice for done in shard.done)
    )


def _publish(entry: tuple[PublishedFile, PlannedShard], *, place: Place, config: SinkConfig) -> Receipt | None:
    """Publishes one slice; returns None if the slice is there already, or if its sources are not those of the plan."""
    file, shard = entry
    body = place.folder.join(DATA, file.file).read(file.etag)
    rows = rows_at(pq.read_table(pa.BufferReader(body)).replace_schema_metadata(None), place.index)
    if shard.is_group and not _is_of_members(rows, file, shard):
        return None
    name, totals = SliceName.parse(file.file), file.footer.totals
    assert name is not None
    header = Header(
        shard=file.shard,
        name=name.name,
        hash16=file.hash16,
        source_etag=shard.etag,
        slice=file.slice,
        first_row=file.first_row,
        num_rows=rows.num_rows,
        slice_first_row=file.first_row,
        slice_last_row=file.last_row,
        slice_rows=rows.num_rows,
        end=file.end,
        ignored=totals.ignored,
        passed_over=totals.passed_over,
        pruned=file.pruned,
    )
    with_macs = rows.append_column("macs", pa.array(macs_by_row(rows, config.network), pa.int64()))
    chunk = Chunk(
        header=header,
        attempt=file.footer.attempt,
        pass_number=0,
        measured=NOTHING,
        rows=with_macs,
        payload=pa.py_buffer(b""),
    )
    return publish_new([chunk], header, config)


def rows_at(rows: pa.Table, index: int) -> pa.Table:
    """Returns the rows of an ordinary output from rows of a pass.

    Args:
        index: Index of the size in `at_sizes`.
    """
    answers = rows.column(AT_SIZES).combine_chunks()
    values = answers.flatten()
    num_sizes = len(values) // max(1, rows.num_rows)
    at_size = values.take(pa.array(np.arange(rows.num_rows) * num_sizes + index))
    names = [field.name for field in at_size.type if field.name not in ("logits", "compute_s")]
    return set_columns(rows.drop_columns([AT_SIZES]), {name: at_size.field(name) for name in names})


def _is_of_members(rows: pa.Table, file: PublishedFile, shard: PlannedShard) -> bool:
    """Returns whether the rows are those of the plan's members, of the same versions."""
    planned = {row for row in range(file.first_row, file.last_row + 1) if row not in shard.pruned}
    if file.last_row >= len(shard.members) or planned != set(rows.column("row").to_pylist()):
        return False
    columns = (rows.column(name).to_pylist() for name in ("row", "image_id", "source_etag"))
    return all(
        (loose_uri(image_id), etag) == (shard.members[row].uri, shard.members[row].etag)
        for row, image_id, etag in zip(*columns, strict=True)
    )
