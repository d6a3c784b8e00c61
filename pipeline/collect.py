"""The collector: gathers the rows of each slice, and publishes a slice with one PUT when its last row has come.

Plain Python; `sink.py` makes Ray actors of it. All chunks of a slice come to the same collector, in any order, some of
them twice.
"""

import io
import logging
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.account import Footer, Totals
from pipeline.chunk import STEPS, Chunk, Header
from pipeline.layout import DATA, SliceName
from pipeline.output import FOOTER_KEY, read_footer
from pipeline.storage import StoreConfig, head, put
from pipeline.store_errors import ExistsError, StoreError
from pipeline.uris import join_uri

logger = logging.getLogger(__name__)

# What one collector holds of unfinished slices before it lets one go; that slice is run again in the next pass.
MAX_HELD_BYTES = 512 * 2**20


@dataclass(frozen=True, kw_only=True)
class SinkConfig:
    """Where and as what slices are published.

    Attributes:
        output: canonical URI of the output folder.
        schema: columns of the files, in order.
        identity: digest of the output's identity.
    """

    output: str
    store: StoreConfig
    schema: pa.Schema
    identity: str
    run_id: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """One published slice, as the collector that published it saw it.

    Attributes:
        file: name below `data/`.
        etag: the file's ETag.
        put_s: seconds of the PUT, which the file itself cannot know.
    """

    file: str
    etag: str
    footer: Footer
    put_s: float


@dataclass(slots=True)
class CollectorState:
    """What a collector tells the driver.

    Attributes:
        rows: rows that arrived, replays apart.
        failed: rows among them that are failed records.
        replayed_chunks: chunks that were there already.
        evicted_slices: slices let go because too much was held.
        first_row_at, last_row_at: `time.time()` of the first and the latest chunk.
        fatal: why nothing more can be published; None while all is well.
        receipts: published slices, in order, from the index asked for.
    """

    rows: int = 0
    failed: int = 0
    replayed_chunks: int = 0
    evicted_slices: int = 0
    first_row_at: float | None = None
    last_row_at: float | None = None
    fatal: str | None = None
    receipts: Sequence[Receipt] = ()


@dataclass(slots=True)
class _Slice:
    """What has come of one slice: the chunks by their first row."""

    chunks: dict[int, Chunk] = field(default_factory=dict)
    num_rows: int = 0
    num_bytes: int = 0
    slice_rows: int | None = None
    end: bool = False


class Collector:
    """Holds unfinished slices, publishes finished ones, and keeps the receipts."""

    def __init__(self, config: SinkConfig, max_held_bytes: int = MAX_HELD_BYTES) -> None:
        self._config = config
        self._max_held_bytes = max_held_bytes
        self._slices: dict[tuple[str, int], _Slice] = {}
        self._closed: set[tuple[str, int]] = set()
        self._pass_number = 0
        self._state = CollectorState()
        self._receipts: list[Receipt] = []

    def start_pass(self, pass_number: int) -> None:
        """Forgets unfinished slices; from now on only chunks of this pass are taken."""
        self._pass_number = pass_number
        self._slices.clear()
        self._closed.clear()

    def state(self, receipts_from: int = 0) -> CollectorState:
        """Counters so far, with the receipts from an index on."""
        return replace(self._state, receipts=tuple(self._receipts[receipts_from:]))

    def add(self, table: pa.Table) -> None:
        """Takes one chunk, and publishes its slice if it is whole now; returns when its rows are here or published."""
        chunk = Chunk.from_table(table)
        header = chunk.header
        address = (header.hash16, header.slice)
        if chunk.pass_number != self._pass_number or address in self._closed or self._state.fatal:
            return
        entry = self._slices.setdefault(address, _Slice())
        if header.first_row in entry.chunks:
            self._state.replayed_chunks += 1
            return
        self._count(chunk)
        entry.chunks[header.first_row] = _own(chunk)
        entry.num_rows += header.num_rows
        entry.num_bytes += chunk.rows.nbytes
        if header.slice_rows is not None:
            entry.slice_rows, entry.end = header.slice_rows, header.end
        if entry.num_rows == entry.slice_rows:
            del self._slices[address]
            self._closed.add(address)
            self._publish(entry)
        else:
            self._evict(keep=address)

    def _count(self, chunk: Chunk) -> None:
        now = time.time()
        self._state.first_row_at = self._state.first_row_at or now
        self._state.last_row_at = now
        self._state.rows += chunk.header.num_rows
        self._state.failed += chunk.header.num_rows - _num_ok(chunk.rows)

    def _evict(self, keep: tuple[str, int]) -> None:
        """Lets the largest other slices go while too much is held."""
        while sum(entry.num_bytes for entry in self._slices.values()) > self._max_held_bytes and len(self._slices) > 1:
            address = max((a for a in self._slices if a != keep), key=lambda a: self._slices[a].num_bytes)
            del self._slices[address]
            self._closed.add(address)
            self._state.evicted_slices += 1
            logger.warning("slice.evicted shard=%s slice=%d", *address)

    def _publish(self, entry: _Slice) -> None:
        """Writes a whole slice under its name, unless it is there already."""
        chunks = [entry.chunks[row] for row in sorted(entry.chunks)]
        header = chunks[0].header
        footer, body = serialise(chunks, entry.end, self._config)
        name = str(SliceName(header.name, header.hash16, header.slice, entry.end))
        uri = join_uri(self._config.output, DATA, name)
        started = time.perf_counter()
        try:
            etag = put(uri, body, self._config.store, if_absent=True)
        except ExistsError:
            self._read_back(uri, name, footer, started)
            return
        except StoreError as error:
            self._state.fatal = f"{uri} cannot be written: {error}"
            logger.error("slice.not_published file=%s error=%s", name, error)
            return
        seconds = time.perf_counter() - started
        self._receipts.append(Receipt(name, etag, footer, seconds))
        logger.info("slice.published file=%s rows=%d seconds=%.3f", name, footer.totals.listed, seconds)

    def _read_back(self, uri: str, name: str, footer: Footer, started: float) -> None:
        """The name was taken: by our own PUT whose answer was lost, or by another attempt at the same slice."""
        info = head(uri, self._config.store)
        there = None if info is None else read_footer(info, self._config.store)
        if info is None or there is None or (there.shard, there.slice) != (footer.shard, footer.slice):
            self._state.fatal = f"{uri} exists but holds something else; move it away"
            return
        if there.nonce == footer.nonce:
            self._receipts.append(Receipt(name, info.etag, footer, time.perf_counter() - started))
        logger.info("slice.was_there file=%s own=%s", name, there.nonce == footer.nonce)


def serialise(chunks: Sequence[Chunk], end: bool, config: SinkConfig) -> tuple[Footer, bytes]:
    """The footer and the bytes of the output file for the chunks of one slice, given in order."""
    first: Header = chunks[0].header
    started = time.perf_counter()
    rows = pa.concat_tables([chunk.rows for chunk in chunks])
    columns = rows.select(config.schema.names).cast(config.schema)
    body = io.BytesIO()
    with pq.ParquetWriter(body, config.schema, compression="zstd") as writer:
        writer.write_table(columns)
        totals = slice_totals(rows, chunks) + Totals(seconds={"serialise": time.perf_counter() - started})
        footer = Footer(
            shard=first.shard,
            hash16=first.hash16,
            slice=first.slice,
            end=end,
            source_etag=first.source_etag,
            first_row=first.slice_first_row,
            last_row=first.slice_first_row + rows.num_rows - 1,
            identity=config.identity,
            run_id=config.run_id,
            attempt=chunks[0].attempt,
            nonce=secrets.token_hex(8),
            totals=totals,
        )
        writer.add_key_value_metadata({FOOTER_KEY.decode(): footer.to_json()})
    return footer, body.getvalue()


def slice_totals(rows: pa.Table, chunks: Sequence[Chunk]) -> Totals:
    """Counts and work of one slice, from its rows and from its chunks' clocks."""
    num_ok = _num_ok(rows)
    codes = Counter(code for code in rows.column("error_code").to_pylist() if code is not None)
    ok = rows.filter(pc.equal(rows.column("status"), "ok"))
    pixels = pc.sum(pc.multiply(ok.column("net_width").cast(pa.int64()), ok.column("net_height").cast(pa.int64())))
    return Totals(
        listed=rows.num_rows,
        ok=num_ok,
        failed=rows.num_rows - num_ok,
        failed_by_code=dict(sorted(codes.items())),
        ignored=sum(chunk.header.ignored for chunk in chunks),
        bytes=pc.sum(rows.column("encoded_bytes")).as_py() or 0,
        pixels=pixels.as_py() or 0,
        macs=pc.sum(rows.column("macs")).as_py() or 0,
        files=1,
        seconds={step.removesuffix("_s"): sum(chunk.seconds[step] for chunk in chunks) for step in STEPS},
    )


def _num_ok(rows: pa.Table) -> int:
    return pc.sum(pc.equal(rows.column("status"), "ok")).as_py() or 0


def _own(chunk: Chunk) -> Chunk:
    """The chunk with its rows copied to this process' heap, so that it does not pin the object store."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, chunk.rows.schema) as writer:
        writer.write_table(chunk.rows)
    rows = pa.ipc.open_stream(sink.getvalue()).read_all()
    return replace(chunk, rows=rows, payload=pa.py_buffer(b""))
