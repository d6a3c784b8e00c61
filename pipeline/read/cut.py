"""How records become slices and chunks: bounds that follow from the plan row and the source's bytes alone.

Ray retries a task by skipping, by index, the blocks that were consumed before; any other order or other bounds would
lose and double rows without an error. In a group of loose files the bounds of slices follow from its membership alone,
so that a slice keeps its records when one of its files changes or goes.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import pyarrow as pa

from pipeline.chunks.chunk import CHUNK_MAX_BYTES, CHUNK_MAX_OUTPUT_BYTES, CHUNK_MAX_RECORDS, Chunk, Header
from pipeline.chunks.columns import PAYLOAD_COLUMNS, record_schema
from pipeline.chunks.measures import NOTHING, Measured, process_number
from pipeline.inputs.record import Record, ShardEnd
from pipeline.plan.planned_shard import PlannedShard, Rewrite
from pipeline.store.meter import store_use


@dataclass(frozen=True, slots=True)
class Placed:
    """A record, its index in the shard, and the sizes by which slices and chunks are cut.

    Attributes:
        dropped: it counts for the bounds but gets no row.
    """

    row: int
    record: Record
    chunk_bytes: int
    output_bytes: int
    dropped: bool = False


@dataclass(frozen=True, kw_only=True)
class CutConfig:
    """Where slices end, and what every chunk of one attempt carries.

    Attributes:
        attempt: 8 hex digits of the read task's attempt.
        pass_number: which pass of the run this is.
        keep_columns: source columns that the records carry.
    """

    rows_per_file: int
    max_file_bytes: int
    attempt: str
    pass_number: int
    keep_columns: tuple[str, ...]


def cut_slices(items: Iterator[Placed | ShardEnd], shard: PlannedShard, config: CutConfig) -> Iterator[Chunk]:
    """Cuts the records of slices that are not done into slices, and these into chunks, looking one record ahead.

    Args:
        items: the records in order, then a `ShardEnd`.
    """
    after_done = {done.last_row + 1: done.slice + 1 for done in shard.done}
    last_done_row = max((done.last_row for done in shard.done), default=-1)
    clock = _Clock()
    current = next(items)
    if isinstance(current, ShardEnd):
        # Nothing (more) is in the shard, yet no slice says that it is the last: an empty one does.
        first = last_done_row + 1
        cursor = _Cursor(after_done.get(first, 0), first)
        header = cursor.header(shard, first, 0, last_row=first - 1, end=True, ignored=current.ignored)
        yield _chunk(header, [], clock, shard, config)
        return
    cursor = _Cursor(0, current.row)
    pending = _Pending()
    while isinstance(current, Placed):
        if not pending.records and current.row in after_done:
            cursor = _Cursor(after_done[current.row], current.row)
        pending.add(current)
        cursor.output_bytes += current.output_bytes
        following = next(items)
        at_end = isinstance(following, ShardEnd)
        slice_ends = at_end or _next_slice(cursor, current, following, config)
        if slice_ends or not pending.takes(following):
            end = at_end and current.row > last_done_row
            ignored = sum(placed.record.ignored for placed in pending.records)
            # Where the shard's last slice is done, it has counted what stands behind it.
            ignored += following.ignored if end and isinstance(following, ShardEnd) else 0
            cursor.drop += [placed.row for placed in pending.records if placed.dropped]
            last_row = current.row if slice_ends else None
            kept = [placed for placed in pending.records if not placed.dropped]
            first_row = pending.records[0].row
            header = cursor.header(shard, first_row, len(kept), last_row=last_row, end=end, ignored=ignored)
            yield _chunk(header, kept, clock, shard, config)
            clock.go_on()
            pending = _Pending()
        if slice_ends and isinstance(following, Placed):
            cursor = _Cursor(cursor.slice + 1, following.row)
        current = following


def cut_rewrites(items: Iterator[Placed | ShardEnd], shard: PlannedShard, config: CutConfig) -> Iterator[Chunk]:
    """Cuts the records that are read again into chunks for the slices in which they exchange their rows.

    Ends early, within a slice, where the source does not give all of them.
    """
    clock = _Clock()
    following = next(items)
    for rewrite in shard.rewrites:
        header = _rewrite_header(shard, rewrite)
        pending = _Pending()
        for row in rewrite.redo:
            if not isinstance(following, Placed) or following.row != row:
                return
            if pending.records and not pending.takes(following):
                part = replace(header, first_row=pending.records[0].row, num_rows=len(pending.records))
                yield _chunk(part, pending.records, clock, shard, config)
                clock.go_on()
                pending = _Pending()
            pending.add(following)
            following = next(items)
        last = replace(
            header,
            first_row=pending.records[0].row if pending.records else rewrite.first_row,
            num_rows=len(pending.records),
            slice_last_row=rewrite.last_row,
            slice_rows=len(rewrite.redo),
            drop=rewrite.drop,
        )
        yield _chunk(last, pending.records, clock, shard, config)
        clock.go_on()


def _next_slice(cursor: "_Cursor", current: Placed, following: Placed | ShardEnd, config: CutConfig) -> bool:
    """True if the record that follows belongs to another slice."""
    return isinstance(following, Placed) and (
        following.row != current.row + 1
        or current.row - cursor.first_row + 1 >= config.rows_per_file
        or cursor.output_bytes + following.output_bytes > config.max_file_bytes
    )


class _Pending:
    """The records of the chunk that is being cut."""

    def __init__(self) -> None:
        self.records: list[Placed] = []
        self._chunk_bytes = self._output_bytes = 0

    def add(self, placed: Placed) -> None:
        """Takes one more."""
        self.records.append(placed)
        self._chunk_bytes += placed.chunk_bytes
        self._output_bytes += placed.output_bytes

    def takes(self, following: Placed | ShardEnd) -> bool:
        """False if the record that follows belongs to another chunk."""
        return isinstance(following, ShardEnd) or (
            len(self.records) < CHUNK_MAX_RECORDS
            and self._chunk_bytes + following.chunk_bytes <= CHUNK_MAX_BYTES
            and self._output_bytes + following.output_bytes <= CHUNK_MAX_OUTPUT_BYTES
        )


class _Clock:
    """What is spent on one chunk after the other; what is fetched ahead counts for the chunk that is cut meanwhile."""

    def __init__(self) -> None:
        self._started, self._used = time.perf_counter(), store_use()

    def measured(self) -> Measured:
        """The measures of a chunk that was read since the last one."""
        before, self._used = self._used, store_use()
        return {
            **NOTHING,
            **self._used.since(before),
            "read_s": time.perf_counter() - self._started,
            "read_ended": time.time(),
            "read_process": process_number(),
        }

    def go_on(self) -> None:
        """The next chunk is begun: the time in which nobody asked for it counts for none, requests on threads do."""
        self._started = time.perf_counter()


class _Cursor:
    """The slice that is being cut: its number, its first row, its dropped rows and predicted size so far."""

    def __init__(self, slice_number: int, first_row: int) -> None:
        self.slice = slice_number
        self.first_row = first_row
        self.output_bytes = 0
        self.drop: list[int] = []

    def header(
        self, shard: PlannedShard, first_row: int, num_rows: int, *, last_row: int | None, end: bool, ignored: int
    ) -> Header:
        """The header of a chunk; `last_row` is the slice's last row in its last chunk, else None."""
        is_last = last_row is not None
        return Header(
            shard=shard.shard,
            name=shard.name,
            hash16=shard.hash16,
            source_etag=shard.etag,
            slice=self.slice,
            first_row=first_row,
            num_rows=num_rows,
            slice_first_row=self.first_row,
            slice_last_row=last_row,
            slice_rows=last_row - self.first_row + 1 - len(self.drop) if last_row is not None else None,
            end=end,
            ignored=ignored,
            drop=tuple(self.drop) if is_last else (),
        )


def _rewrite_header(shard: PlannedShard, rewrite: Rewrite) -> Header:
    return Header(
        shard=shard.shard,
        name=shard.name,
        hash16=shard.hash16,
        source_etag=shard.etag,
        slice=rewrite.slice,
        first_row=rewrite.first_row,
        num_rows=0,
        slice_first_row=rewrite.first_row,
        slice_last_row=None,
        slice_rows=None,
        end=rewrite.end,
        ignored=0,
        overwrites=rewrite.file_etag,
        file=rewrite.file,
    )


def _chunk(header: Header, placed: Sequence[Placed], clock: "_Clock", shard: PlannedShard, config: CutConfig) -> Chunk:
    """The chunk as it leaves the read step; rows that could be read are `ok` until a later step says otherwise."""
    records = [entry.record for entry in placed]
    payload = [b"" if record.data is None or record.failure is not None else record.data for record in records]
    lengths = [len(data) for data in payload]
    columns: dict[str, list[Any]] = {
        **_sources(placed, shard),
        "status": ["ok" if record.failure is None else "failed" for record in records],
        "error_code": [None if record.failure is None else str(record.failure.code) for record in records],
        "error_message": [None if record.failure is None else record.failure.message for record in records],
        "encoded_bytes": [None if record.data is None else len(record.data) for record in records],
        "true_label": [record.true_label for record in records],
        "payload_offset": [0, *accumulate(lengths)][: len(records)],
        "payload_length": lengths,
        # A record that could not be read has none of them.
        **{
            name: [record.kept[at] if at < len(record.kept) else None for record in records]
            for at, name in enumerate(config.keep_columns)
        },
    }
    schema = pa.schema([*record_schema(config.keep_columns), *PAYLOAD_COLUMNS])
    missing = [None] * len(records)
    arrays = [pa.array(columns.get(field.name, missing), field.type) for field in schema]
    return Chunk(
        header=header,
        attempt=config.attempt,
        pass_number=config.pass_number,
        measured=clock.measured(),
        rows=pa.Table.from_arrays(arrays, schema=schema),
        payload=pa.py_buffer(b"".join(payload)),
    )


def _sources(placed: Sequence[Placed], shard: PlannedShard) -> dict[str, list[Any]]:
    """The columns that say where each record was found."""
    keys = [entry.record.key for entry in placed]
    if shard.is_group:
        members = [shard.members[entry.row] for entry in placed]
        ids, etags = [member.uri for member in members], [member.etag for member in members]
    else:
        ids = [shard.shard if key is None else f"{shard.shard}#{key}" for key in keys]
        etags = [shard.etag] * len(placed)
    return {
        "image_id": ids,
        "shard": [shard.shard] * len(placed),
        "key": keys,
        "row": [entry.row for entry in placed],
        "source_etag": etags,
    }
