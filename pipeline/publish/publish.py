"""Publication of slices: one slice is one PUT, under a name that is used once; and rewrites of published files.

Every PUT is conditional. A slice is created if its name is free, or if the file under its name was emptied for this
version of the source. A rewrite replaces the one version of the file that the rewrite was planned on. So a late writer,
from a run that another run has overtaken, fails the condition and changes nothing. A writer whose answer was lost finds
its own nonce in the file, and knows that the write succeeded.
"""

import logging
import secrets
import time
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.account.breakdown import breakdown_of
from pipeline.account.totals import Totals
from pipeline.chunks.chunk import Chunk, Header
from pipeline.errors import OutputError
from pipeline.output.footer import Footer
from pipeline.output.layout import DATA, SliceName
from pipeline.output.published import FOOTER_KEY, PublishedFile, read_footer
from pipeline.publish.config import SinkConfig
from pipeline.publish.receipt import BUSY_STEPS, Receipt, count_rows, receipt_of, slice_totals
from pipeline.publish.slice_file import empty_parquet, macs_by_row, macs_of, serialise
from pipeline.store.errors import ChangedError, ExistsError, NotFoundError
from pipeline.store.object_info import ObjectInfo
from pipeline.store.store_path import StorePath

logger = logging.getLogger(__name__)

# Times that another writer may change the file between a read and the write that follows.
_MAX_ROUNDS = 4


def file_name(header: Header) -> str:
    """Returns the name below `data/` of the file of a slice; `header` is the header of the slice's last chunk."""
    return header.file or str(SliceName(header.name, header.hash16, header.slice, header.end))


def publish_new(chunks: Sequence[Chunk], last: Header, config: SinkConfig) -> Receipt | None:
    """Publishes a complete slice and returns the receipt; None if another writer has published the slice.

    Args:
        chunks: All chunks of the slice, in order.
        last: Header of the last chunk of the slice.
        config: Settings of the publication.

    Raises:
        OutputError: Another object has the name of the slice's file, or something else keeps changing that file.
        StoreError: The store refuses a request or does not answer.
    """
    rows = pa.concat_tables([chunk.rows for chunk in chunks])
    totals = slice_totals(rows, chunks)
    footer, body = serialise(rows, totals, None, last, chunks[0].attempt, config)
    name = file_name(last)
    path = config.output.join(DATA, name)
    empty_etag = None
    for _ in range(_MAX_ROUNDS):
        _check_right(config)
        started = time.perf_counter()
        try:
            etag = path.put(body, if_absent=empty_etag is None, if_match=empty_etag)
            return receipt_of(name, etag, footer, started, len(body), chunks)
        except (ExistsError, ChangedError):
            there, info = _current(path)
        if there is None or info is None:
            # The object was removed between two requests, though no run removes a name.
            raise OutputError(f"{path} came and went; does something else delete from the output?")
        if (there.shard, there.slice) != (footer.shard, footer.slice):
            raise OutputError(f"{path} exists but holds something else; move it away")
        if there.nonce == footer.nonce:
            return receipt_of(name, info.etag, footer, started, len(body), chunks)
        if not there.emptied or there.source_etag != footer.source_etag:
            return None
        empty_etag = info.etag
    raise OutputError(f"{path} changes all the time; is another run writing here?")


def publish_rewrite(chunks: Sequence[Chunk], last: Header, config: SinkConfig) -> Receipt | None:
    """Replaces rows in a published file and returns the receipt; None if the file has changed since the plan was made.

    Args:
        chunks: The new rows, in order.
        last: Header of the last chunk, with the name of the file, the file's version and the rows to remove.
        config: Settings of the publication.

    Raises:
        StoreError: The store refuses a request or does not answer.
    """
    name = file_name(last)
    path = config.output.join(DATA, name)
    try:
        written = path.read(etag=last.overwrites)
    except (NotFoundError, ChangedError):
        return None
    file = pq.ParquetFile(pa.BufferReader(written))
    older, before = file.read(), Footer.from_json(file.metadata.metadata[FOOTER_KEY])
    fresh = pa.concat_tables([chunk.rows for chunk in chunks])
    exchanged = {*fresh.column("row").to_pylist(), *last.pruned}
    kept = older.filter(pa.array([row not in exchanged for row in older.column("row").to_pylist()], pa.bool_()))
    names = config.schema.names
    kept_rows = kept.select(names).cast(config.schema).replace_schema_metadata(None)
    rows = pa.concat_tables([kept_rows, fresh.select(names).cast(config.schema)]).sort_by("row")
    own = slice_totals(fresh, chunks)
    totals = count_rows(rows, macs_of(kept, config.network) + own.macs, before.totals.ignored, before.totals.seconds)
    totals += Totals(seconds=own.seconds, counts=own.counts, passed_over=before.totals.passed_over)
    footer, body = serialise(rows, totals, own, last, chunks[0].attempt, config)
    _check_right(config)
    started = time.perf_counter()
    try:
        etag = path.put(body, if_match=last.overwrites)
    except ChangedError:
        there, info = _current(path)
        if there is None or info is None or there.nonce != footer.nonce:
            return None
        etag = info.etag
    return receipt_of(name, etag, footer, started, len(body), chunks)


def empty_file(file: PublishedFile, awaits: str | None, config: SinkConfig) -> Receipt | None:
    """Replaces a published file by a file without rows, which keeps the name in use, and returns the receipt.

    Returns None if the file has changed.

    Args:
        file: The file to empty.
        awaits: Version of the source that may fill the file again; None if no version may.
        config: Settings of the publication.
    """
    footer = Footer(
        shard=file.shard,
        hash16=file.hash16,
        slice=file.slice,
        end=file.end,
        source_etag=awaits,
        first_row=file.first_row,
        last_row=file.first_row - 1,
        identity=config.identity,
        run_id=config.run_id,
        attempt="",
        nonce=secrets.token_hex(8),
        totals=Totals(),
        emptied=True,
    )
    path = config.output.join(DATA, file.file)
    _check_right(config)
    try:
        etag = path.put(empty_parquet(footer, config.schema), if_match=file.etag)
    except ChangedError:
        there, info = _current(path)
        if there is None or info is None or there.nonce != footer.nonce:
            return None
        etag = info.etag
    return Receipt(file.file, etag, footer, 0.0)


def receipt_read_back(file: PublishedFile, config: SinkConfig) -> Receipt:
    """Returns the receipt of a file whose collector died before it reported the file.

    The receipt lacks the seconds of the PUT and the spans of the work, since the file does not hold them. The receipt
    of a rewrite also lacks the breakdown, since the file does not say which rows the rewrite replaced.

    Raises:
        StoreError: The file cannot be read.
    """
    written = config.output.join(DATA, file.file).read(etag=file.etag)
    footer = file.footer
    if footer.own is not None:
        return Receipt(file.file, file.etag, footer, 0.0, len(written))
    rows = pq.ParquetFile(pa.BufferReader(written)).read()
    rows = rows.append_column("macs", pa.array(macs_by_row(rows, config.network), pa.int64()))
    busy_s = sum(footer.totals.seconds.get(step, 0.0) for step in BUSY_STEPS)
    breakdown = breakdown_of(rows, footer.totals.seconds.get("compute", 0.0), busy_s, peak_gflops=0.0)
    return Receipt(file.file, file.etag, footer, 0.0, len(written), breakdown)


def _current(path: StorePath) -> tuple[Footer | None, ObjectInfo | None]:
    """Returns the footer and the info of an output file; (None, None) if there is no such file."""
    info = path.head()
    return (None, None) if info is None else (read_footer(path, info.size, info.etag), info)


def _check_right(config: SinkConfig) -> None:
    if config.may_write is not None:
        config.may_write()
