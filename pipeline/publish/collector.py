"""The collector: gathers the rows of each slice, and publishes a slice with one PUT when its last row has arrived.

The collector is plain Python; `pipeline.flow.collectors` runs collectors as Ray actors. All chunks of a slice arrive at
the same collector, in any order, and some of them twice. Rows are identified by their index in the shard: each index is
taken once, from the first attempt that sends its row.
"""

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from pipeline.account.totals import Totals
from pipeline.chunks.chunk import Chunk, Header
from pipeline.errors import PipelineError
from pipeline.publish.config import SinkConfig
from pipeline.publish.publish import file_name, publish_new, publish_rewrite
from pipeline.publish.receipt import Receipt, slice_totals
from pipeline.publish.spill import Write, in_memory, on_disk
from pipeline.store.errors import StoreError

logger = logging.getLogger(__name__)

# Bytes of unfinished slices that one collector holds in memory. More rows go to files without names in the folder for
# temporary files (TMPDIR). If that folder is full, a slice is evicted, and run again in the next pass.
MAX_HELD_BYTES = 512 * 2**20


@dataclass(slots=True)
class CollectorState:
    """The report of a collector to the driver.

    Attributes:
        arrived: Counts, work and seconds of the rows that arrived, each row counted once; `files` is 0.
        replayed_chunks: Number of chunks whose rows had all arrived before.
        spilled_bytes: Bytes of rows that were held in temporary files.
        evicted_slices: Number of unfinished slices that were dropped for lack of memory.
        first_row_at: `time.time()` at the arrival of the first chunk; None before that chunk.
        fatal: Reason why nothing more can be published; None as long as slices can be published.
        receipts: Receipts of published slices, in order, from the requested index on.
    """

    arrived: Totals = field(default_factory=Totals)
    replayed_chunks: int = 0
    spilled_bytes: int = 0
    evicted_slices: int = 0
    first_row_at: float | None = None
    fatal: str | None = None
    receipts: Sequence[Receipt] = ()


@dataclass(slots=True)
class _Slice:
    """The arrived part of one slice: chunks, row indexes, bytes in memory, and the header of the last chunk."""

    chunks: list[Chunk] = field(default_factory=list)
    rows: set[int] = field(default_factory=set)
    num_bytes: int = 0
    last: Header | None = None

    @property
    def is_complete(self) -> bool:
        return self.last is not None and len(self.rows) == self.last.slice_rows


class Collector:
    """Holds unfinished slices, publishes complete slices, and keeps the receipts."""

    def __init__(self, config: SinkConfig, max_held_bytes: int = MAX_HELD_BYTES) -> None:
        self._config = config
        self._max_held_bytes = max_held_bytes
        self._slices: dict[tuple[str, int], _Slice] = {}
        self._closed: set[tuple[str, int]] = set()
        self._pass_number = 0
        self._state = CollectorState()
        self._receipts: list[Receipt] = []
        self._num_bare = 0

    def start_pass(self, pass_number: int) -> None:
        """Forgets unfinished slices, and accepts only chunks of this pass from now on."""
        self._pass_number = pass_number
        self._slices.clear()
        self._closed.clear()

    def state(self, receipts_from: int = 0) -> CollectorState:
        """Returns the counters, and the receipts from index `receipts_from` on.

        Older receipts, which the driver has, are reduced by `Receipt.bare`.
        """
        for index in range(self._num_bare, min(receipts_from, len(self._receipts))):
            self._receipts[index] = self._receipts[index].bare()
        self._num_bare = max(self._num_bare, receipts_from)
        return replace(self._state, receipts=tuple(self._receipts[receipts_from:]))

    def add(self, table: pa.Table) -> None:
        """Adds one chunk to its slice, and publishes the slice if the slice is complete.

        When the method returns, the rows are held or published. Chunks of another pass, and of slices that were
        published or dropped, are ignored.
        """
        chunk = Chunk.from_table(table)
        header = chunk.header
        address = (header.hash16, header.slice)
        if chunk.pass_number != self._pass_number or address in self._closed or self._state.fatal:
            return
        entry = self._slices.setdefault(address, _Slice())
        fresh = _only_new(chunk, entry.rows)
        if fresh is None:
            self._state.replayed_chunks += 1
        else:
            self._count(fresh)
            entry.rows.update(fresh.rows.column("row").to_pylist())
            self._keep(fresh, entry)
        if header.slice_rows is not None:
            entry.last = header
        if entry.is_complete:
            del self._slices[address]
            self._closed.add(address)
            self._publish(entry)
        else:
            self._evict(keep=address)

    def _count(self, chunk: Chunk) -> None:
        self._state.first_row_at = self._state.first_row_at or time.time()
        self._state.arrived += replace(slice_totals(chunk.rows, [chunk]), files=0)

    def _keep(self, chunk: Chunk, entry: _Slice) -> None:
        """Copies the rows of a chunk into memory, or to the disk if memory would hold too many bytes."""
        num_bytes = chunk.rows.nbytes
        if self._held_bytes() + num_bytes > self._max_held_bytes:
            try:
                entry.chunks.append(_own(chunk, on_disk))
                self._state.spilled_bytes += num_bytes
                return
            except OSError as error:
                logger.warning("rows.not_spilled folder=%s error=%s", tempfile.gettempdir(), error)
        entry.chunks.append(_own(chunk, in_memory))
        entry.num_bytes += num_bytes

    def _held_bytes(self) -> int:
        return sum(entry.num_bytes for entry in self._slices.values())

    def _evict(self, keep: tuple[str, int]) -> None:
        """Drops the largest slices except `keep`, as long as too many bytes are held."""
        while self._held_bytes() > self._max_held_bytes and len(self._slices) > 1:
            address = max((a for a in self._slices if a != keep), key=lambda a: self._slices[a].num_bytes)
            del self._slices[address]
            self._closed.add(address)
            self._state.evicted_slices += 1
            logger.warning("slice.evicted shard=%s slice=%d", *address)

    def _publish(self, entry: _Slice) -> None:
        """Publishes a complete slice, or replaces rows in its published file."""
        assert entry.last is not None
        chunks = sorted(entry.chunks, key=lambda chunk: chunk.header.first_row)
        name = file_name(entry.last)
        started = time.perf_counter()
        try:
            if entry.last.overwrites is None:
                receipt = publish_new(chunks, entry.last, self._config)
            else:
                receipt = publish_rewrite(chunks, entry.last, self._config)
        except (StoreError, PipelineError) as error:
            self._state.fatal = str(error)
            logger.error("slice.not_published file=%s error=%s", name, error)
            return
        seconds = time.perf_counter() - started
        if receipt is None:
            logger.info("slice.was_there file=%s", name)
            return
        self._receipts.append(receipt)
        logger.info("slice.published file=%s rows=%d seconds=%.3f", name, receipt.footer.totals.listed, seconds)


def _only_new(chunk: Chunk, seen: set[int]) -> Chunk | None:
    """Returns the chunk without rows that have arrived before; None if all rows have arrived before."""
    rows = chunk.rows.column("row").to_pylist()
    new = [row not in seen for row in rows]
    if all(new):
        return chunk
    return replace(chunk, rows=chunk.rows.filter(pa.array(new))) if any(new) else None


def _own(chunk: Chunk, place: Callable[[Write], pa.Buffer]) -> Chunk:
    """Returns the chunk with its rows copied into this process, so that the chunk does not pin Ray's object store."""

    def write(sink: Any) -> None:
        with pa.ipc.new_stream(sink, chunk.rows.schema) as writer:
            writer.write_table(chunk.rows)

    return replace(chunk, rows=pa.ipc.open_stream(place(write)).read_all(), payload=pa.py_buffer(b""))
