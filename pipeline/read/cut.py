"""Cuts records into slices and chunks, at bounds that follow from the plan row and the bytes of the source alone.

Ray retries a task by skipping, by index, the blocks that were consumed before. Any other order or other bounds would
lose and double rows without an error. In a group of loose files the bounds of slices follow from the members of the
group alone, so that a slice keeps its records when one of its files changes or goes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from pipeline.chunks.chunk import CHUNK_MAX_BYTES, CHUNK_MAX_OUTPUT_BYTES, CHUNK_MAX_RECORDS, Chunk, Header
from pipeline.chunks.passed_over import add_up
from pipeline.inputs.record import Record, ShardEnd
from pipeline.plan.planned_shard import PlannedShard, Rewrite
from pipeline.read.build_chunk import CutConfig, Placed, ReadClock, build_chunk


def cut_slices(items: Iterator[Placed | ShardEnd], shard: PlannedShard, config: CutConfig) -> Iterator[Chunk]:
    """Yields the chunks of all slices that are not done, looking one record ahead.

    Args:
        items: the records in order, then a `ShardEnd`.
    """
    after_done = {done.last_row + 1: done.slice + 1 for done in shard.done}
    last_done_row = max((done.last_row for done in shard.done), default=-1)
    clock = ReadClock()
    current = next(items)
    if isinstance(current, ShardEnd):
        # The shard holds no further record, but no slice is marked as the last slice. So an empty slice gets that mark.
        first = last_done_row + 1
        cursor = _Cursor(after_done.get(first, 0), first)
        header = cursor.header(shard, first, 0, last_row=first - 1, end=True, left_out=[current])
        yield build_chunk(header, [], clock, shard, config)
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
            left_out: list[Record | ShardEnd] = [placed.record for placed in pending.records]
            # If the shard's last slice is done, that slice has counted the members behind the last record.
            left_out += [following] if end and isinstance(following, ShardEnd) else []
            cursor.pruned += [placed.row for placed in pending.records if placed.pruned]
            last_row = current.row if slice_ends else None
            kept = [placed for placed in pending.records if not placed.pruned]
            first_row = pending.records[0].row
            header = cursor.header(shard, first_row, len(kept), last_row=last_row, end=end, left_out=left_out)
            yield build_chunk(header, kept, clock, shard, config)
            clock.begin_next()
            pending = _Pending()
        if slice_ends and isinstance(following, Placed):
            cursor = _Cursor(cursor.slice + 1, following.row)
        current = following


def cut_rewrites(items: Iterator[Placed | ShardEnd], shard: PlannedShard, config: CutConfig) -> Iterator[Chunk]:
    """Yields chunks of the records that rewrites read again; their new rows replace rows of published slices.

    The iteration ends early, within a slice, if the source does not give all of these records.
    """
    clock = ReadClock()
    following = next(items)
    for rewrite in shard.rewrites:
        header = _rewrite_header(shard, rewrite)
        pending = _Pending()
        for row in rewrite.redo:
            if not isinstance(following, Placed) or following.row != row:
                return
            if pending.records and not pending.takes(following):
                part = replace(header, first_row=pending.records[0].row, num_rows=len(pending.records))
                yield build_chunk(part, pending.records, clock, shard, config)
                clock.begin_next()
                pending = _Pending()
            pending.add(following)
            following = next(items)
        last = replace(
            header,
            first_row=pending.records[0].row if pending.records else rewrite.first_row,
            num_rows=len(pending.records),
            slice_last_row=rewrite.last_row,
            slice_rows=len(rewrite.redo),
            pruned=rewrite.pruned,
        )
        yield build_chunk(last, pending.records, clock, shard, config)
        clock.begin_next()


def _next_slice(cursor: "_Cursor", current: Placed, following: Placed | ShardEnd, config: CutConfig) -> bool:
    """Returns True if the record that follows belongs to another slice."""
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
        """Takes one more record."""
        self.records.append(placed)
        self._chunk_bytes += placed.chunk_bytes
        self._output_bytes += placed.output_bytes

    def takes(self, following: Placed | ShardEnd) -> bool:
        """Returns False if the record that follows belongs to another chunk."""
        return isinstance(following, ShardEnd) or (
            len(self.records) < CHUNK_MAX_RECORDS
            and self._chunk_bytes + following.chunk_bytes <= CHUNK_MAX_BYTES
            and self._output_bytes + following.output_bytes <= CHUNK_MAX_OUTPUT_BYTES
        )


class _Cursor:
    """The slice that is being cut: its number, its first row, its pruned rows and predicted size so far."""

    def __init__(self, slice_number: int, first_row: int) -> None:
        self.slice = slice_number
        self.first_row = first_row
        self.output_bytes = 0
        self.pruned: list[int] = []

    def header(
        self,
        shard: PlannedShard,
        first_row: int,
        num_rows: int,
        *,
        last_row: int | None,
        end: bool,
        left_out: Sequence[Record | ShardEnd],
    ) -> Header:
        """Returns the header of a chunk.

        Args:
            last_row: the last row of the slice for the slice's last chunk, else None.
            left_out: the items whose counts of members that were passed over belong to the chunk.
        """
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
            slice_rows=last_row - self.first_row + 1 - len(self.pruned) if last_row is not None else None,
            end=end,
            ignored=sum(item.ignored for item in left_out),
            passed_over=add_up(dict(item.passed_over) for item in left_out if item.passed_over),
            pruned=tuple(self.pruned) if is_last else (),
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
