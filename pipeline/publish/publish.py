"""Publication: one slice, one PUT, under a name that is used once; and the exchange of rows in a file that is there.

Every PUT is conditional. A slice is created where its name is free, or where the file under its name was emptied for
this very version of the source. A rewrite replaces the one version of the file that it was planned on. So a writer that
comes late, from a run that was overtaken, finds its condition broken and changes nothing; and a writer whose answer was
lost finds its own nonce and knows that it has written.
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
from pipeline.store.storage import head, put, read
from pipeline.store.uris import join_uri

logger = logging.getLogger(__name__)

# How often a name may be found in another state than it was just read in; each time somebody else has written.
_MAX_ROUNDS = 4


def file_name(header: Header) -> str:
    """The name below `data/` of the slice that a chunk belongs to; `header` is that of its last chunk."""
    return header.file or str(SliceName(header.name, header.hash16, header.slice, header.end))


def publish_new(chunks: Sequence[Chunk], last: Header, config: SinkConfig) -> Receipt | None:
    """Publishes a slice whose chunks, in order, are all there; None if somebody else has published it.

    Args:
        last: header of the slice's last chunk.

    Raises:
        OutputError: something else lies under the name.
        StoreError: the store refuses.
    """
    rows = pa.concat_tables([chunk.rows for chunk in chunks])
    totals = slice_totals(rows, chunks)
    footer, body = serialise(rows, totals, None, last, chunks[0].attempt, config)
    name = file_name(last)
    uri = join_uri(config.output, DATA, name)
    empty_etag = None
    for _ in range(_MAX_ROUNDS):
        _check_right(config)
        started = time.perf_counter()
        try:
            etag = put(uri, body, config.store, if_absent=empty_etag is None, if_match=empty_etag)
            return receipt_of(name, etag, footer, started, len(body), chunks)
        except (ExistsError, ChangedError):
            there, info = _look(uri, config)
        if there is None or info is None:
            # Gone between two requests: nobody of ours removes a name.
            raise OutputError(f"{uri} came and went; does something else delete from the output?")
        if (there.shard, there.slice) != (footer.shard, footer.slice):
            raise OutputError(f"{uri} exists but holds something else; move it away")
        if there.nonce == footer.nonce:
            return receipt_of(name, info.etag, footer, started, len(body), chunks)
        if not there.emptied or there.source_etag != footer.source_etag:
            return None
        empty_etag = info.etag
    raise OutputError(f"{uri} changes all the time; is another run writing here?")


def publish_rewrite(chunks: Sequence[Chunk], last: Header, config: SinkConfig) -> Receipt | None:
    """Exchanges rows in a published file, if it is still the version that the rewrite was planned on; else None.

    Raises:
        StoreError: the store refuses.
    """
    name = file_name(last)
    uri = join_uri(config.output, DATA, name)
    try:
        written = read(uri, config.store, etag=last.overwrites)
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
    totals += Totals(seconds=own.seconds, counts=own.counts)
    footer, body = serialise(rows, totals, own, last, chunks[0].attempt, config)
    _check_right(config)
    started = time.perf_counter()
    try:
        etag = put(uri, body, config.store, if_match=last.overwrites)
    except ChangedError:
        there, info = _look(uri, config)
        if there is None or info is None or there.nonce != footer.nonce:
            return None
        etag = info.etag
    return receipt_of(name, etag, footer, started, len(body), chunks)


def empty_file(file: PublishedFile, awaits: str | None, config: SinkConfig) -> Receipt | None:
    """Exchanges a published file for one without rows that keeps its name taken; None if it has changed meanwhile.

    Args:
        awaits: version of the source that may fill it again; None: none may.
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
    uri = join_uri(config.output, DATA, file.file)
    _check_right(config)
    try:
        etag = put(uri, empty_parquet(footer, config.schema), config.store, if_match=file.etag)
    except ChangedError:
        there, info = _look(uri, config)
        if there is None or info is None or there.nonce != footer.nonce:
            return None
        etag = info.etag
    return Receipt(file.file, etag, footer, 0.0)


def receipt_read_back(file: PublishedFile, config: SinkConfig) -> Receipt:
    """The receipt of a file whose collector died before it told of it: without what the file does not hold.

    That are the seconds of the PUT and the times of the work; and of a rewrite also which rows it exchanged.

    Raises:
        StoreError: the file cannot be read.
    """
    written = read(join_uri(config.output, DATA, file.file), config.store, etag=file.etag)
    footer = file.footer
    if footer.own is not None:
        return Receipt(file.file, file.etag, footer, 0.0, len(written))
    rows = pq.ParquetFile(pa.BufferReader(written)).read()
    rows = rows.append_column("macs", pa.array(macs_by_row(rows, config.network), pa.int64()))
    busy_s = sum(footer.totals.seconds.get(step, 0.0) for step in BUSY_STEPS)
    breakdown = breakdown_of(rows, footer.totals.seconds.get("compute", 0.0), busy_s, peak_gflops=0.0)
    return Receipt(file.file, file.etag, footer, 0.0, len(written), breakdown)


def _look(uri: str, config: SinkConfig) -> tuple[Footer | None, ObjectInfo | None]:
    """What lies under a name now."""
    info = head(uri, config.store)
    return (None, None) if info is None else (read_footer(info, config.store), info)


def _check_right(config: SinkConfig) -> None:
    if config.may_write is not None:
        config.may_write()
