"""The read step: one planned shard -> chunks of encoded images, in an order and with bounds that never vary.

What is yielded is a pure function of the plan row and the source's bytes. Ray retries a task by skipping, by index, the
blocks that were consumed before; any other order or other bounds would lose and double rows without an error.
"""

import logging
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa

from pipeline.chunk import STEPS, Chunk, Header
from pipeline.config import CHUNK_MAX_BYTES, CHUNK_MAX_RECORDS, InputConfig
from pipeline.decode import probe_size
from pipeline.errors import ErrorCode, Failure, InputError
from pipeline.listing import Found
from pipeline.plan import PlannedShard
from pipeline.schema import PAYLOAD_COLUMNS, record_schema
from pipeline.shards.files import read_files
from pipeline.shards.parquet import check_columns, num_rows, read_parquet, read_schema
from pipeline.shards.record import Record, ShardEnd
from pipeline.shards.tar import read_tar
from pipeline.sizes import NetSize, SizePolicy, net_size
from pipeline.storage import open_reader
from pipeline.store_errors import ChangedError, NotFoundError, StoreError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """What the read step needs besides the plan row.

    Attributes:
        input: globs, columns and the store.
        rows_per_file, max_file_bytes: where slices end.
        row_bytes: predicted size of one output row without its kept columns.
        sizes: what becomes of small and large images; it decides their decoded size.
        pass_number: which pass of the run this is.
        last_pass: sources that cannot be read become failed rows; before the last pass they are left for the next.
    """

    input: InputConfig
    rows_per_file: int
    max_file_bytes: int
    row_bytes: int
    sizes: SizePolicy
    pass_number: int
    last_pass: bool


@dataclass(frozen=True, slots=True)
class _Placed:
    """A record, its index in the shard, and the sizes by which slices and chunks are cut."""

    row: int
    record: Record
    chunk_bytes: int
    output_bytes: int


def read_shard(shard: PlannedShard, config: ReadConfig) -> Iterator[Chunk]:
    """The chunks of all slices of a shard that are not done.

    A store that fails in another way than "gone" or "changed" ends the iteration early (but in the last pass): the
    slices that are not whole stay unpublished, and the next pass reads them again.
    """
    attempt = secrets.token_hex(4)
    try:
        yield from _cut(_wanted_records(shard, config), shard, config, attempt)
    except StoreError as error:
        logger.warning("shard.postponed shard=%s pass=%d error=%s", shard.shard, config.pass_number, error)


def _wanted_records(shard: PlannedShard, config: ReadConfig) -> Iterator[_Placed | ShardEnd]:
    """The records outside the done slices, each with its row; ends with a `ShardEnd`."""
    done_rows = [range(done.first_row, done.last_row + 1) for done in shard.done]
    if shard.format == "files":
        wanted = [row for row in range(len(shard.members)) if not any(row in rows for rows in done_rows)]
        members = [shard.members[row] for row in wanted]
        records = read_files(members, config.input.store, give_up_failed=config.last_pass)
        yield from (_place(row, record, config) for row, record in zip(wanted, records, strict=True))
        yield ShardEnd(0)
        return
    # Done slices at the head are skipped by the reader where it can, later ones as they come.
    start = 0
    for rows in done_rows:
        if rows.start <= start:
            start = max(start, rows.stop)
    row = start if shard.format == "parquet" else 0
    try:
        for item in _object_records(shard, config, start):
            if isinstance(item, ShardEnd):
                yield item
                return
            if shard.num_records is not None and row >= shard.num_records:
                yield ShardEnd(0)
                return
            if not any(row in rows for rows in done_rows):
                yield _place(row, item, config)
            row += 1
    except NotFoundError:
        failure = Failure(ErrorCode.SOURCE_MISSING, "the object was listed but is gone")
    except ChangedError:
        failure = Failure(ErrorCode.SOURCE_CHANGED, "the object changed after it was listed")
    except StoreError as error:
        if not config.last_pass:
            raise
        failure = Failure(ErrorCode.SOURCE_UNREADABLE, f"the object could not be read ({type(error).__name__})")
    for lost, key in _lost_records(shard, row, done_rows):
        yield _place(lost, Record(key=key, data=None, failure=failure), config)
    yield ShardEnd(0)


def _object_records(shard: PlannedShard, config: ReadConfig, start: int) -> Iterator[Record | ShardEnd]:
    """The records of a tar or Parquet object (Parquet: from row `start` on), then a `ShardEnd`."""
    with open_reader(shard.shard, config.input.store, size=shard.size, etag=shard.etag) as file:
        if shard.format == "tar":
            yield from read_tar(file, names=config.input.names, keep_columns=config.input.keep_columns)
        else:
            yield from read_parquet(
                file,
                image_column=config.input.image_column,
                keep_columns=config.input.keep_columns,
                start_row=start,
            )


def _lost_records(shard: PlannedShard, row: int, done_rows: Sequence[range]) -> list[tuple[int, str | None]]:
    """(row, key) of the records from `row` on that are lost with their source.

    Those that are known to be there, before a done slice or by the plan's count, are lost each by itself. Where none
    is, one without key stands for the rest: a shard whose every known record is done would not be read again.
    """
    num_known = shard.num_records
    if num_known is None:
        num_known = max((rows.stop for rows in done_rows), default=0)
    missing = [at for at in range(row, num_known) if not any(at in rows for rows in done_rows)]
    if missing or shard.num_records is not None:
        return [(at, str(at) if shard.format == "parquet" else f"@{at}") for at in missing]
    return [(max(row, num_known), None)]


def _place(row: int, record: Record, config: ReadConfig) -> _Placed:
    """The record with its sizes. A chunk carries it encoded, then decoded: the larger of the two is what counts."""
    num_bytes = 0
    if record.data is not None and record.failure is None:
        size = probe_size(record.data)
        net = None if size is None else net_size(*size, config.sizes)
        num_bytes = max(len(record.data), 3 * net.width * net.height if isinstance(net, NetSize) else 0)
    texts = (record.key, record.true_label, *record.kept)
    return _Placed(row, record, num_bytes, config.row_bytes + sum(len(text) for text in texts if text is not None))


def _cut(items: Iterator[_Placed | ShardEnd], shard: PlannedShard, config: ReadConfig, attempt: str) -> Iterator[Chunk]:
    """Cuts the records into slices and the slices into chunks, looking one record ahead."""
    after_done = {done.last_row + 1: done.slice + 1 for done in shard.done}
    last_done_row = max((done.last_row for done in shard.done), default=-1)
    started = time.perf_counter()
    current = next(items)
    if isinstance(current, ShardEnd):
        # Nothing (more) is in the shard, yet no slice says that it is the last: an empty one does.
        first = last_done_row + 1
        header = _Cursor(after_done.get(first, 0), first).header(shard, first, 0, 0, True, current.ignored)
        yield _chunk(header, [], started, attempt, shard, config)
        return
    cursor = _Cursor(0, current.row)
    pending: list[_Placed] = []
    pending_bytes = 0
    while isinstance(current, _Placed):
        if not pending and current.row in after_done:
            cursor = _Cursor(after_done[current.row], current.row)
        pending.append(current)
        cursor.output_bytes += current.output_bytes
        pending_bytes += current.chunk_bytes
        following = next(items)
        at_end = isinstance(following, ShardEnd)
        slice_ends = at_end or _next_slice(cursor, current, following, config)
        if slice_ends or _next_chunk(len(pending), pending_bytes, following):
            slice_rows = current.row - cursor.first_row + 1 if slice_ends else None
            end = at_end and current.row > last_done_row
            ignored = sum(placed.record.ignored for placed in pending)
            # Where the shard's last slice is done, it has counted what stands behind it.
            ignored += following.ignored if end and isinstance(following, ShardEnd) else 0
            header = cursor.header(shard, pending[0].row, len(pending), slice_rows, end, ignored)
            yield _chunk(header, pending, started, attempt, shard, config)
            started = time.perf_counter()
            pending, pending_bytes = [], 0
        if slice_ends and isinstance(following, _Placed):
            cursor = _Cursor(cursor.slice + 1, following.row)
        current = following


def _next_slice(cursor: "_Cursor", current: _Placed, following: _Placed | ShardEnd, config: ReadConfig) -> bool:
    """True if the record that follows belongs to another slice."""
    return isinstance(following, _Placed) and (
        following.row != current.row + 1
        or current.row - cursor.first_row + 1 >= config.rows_per_file
        or cursor.output_bytes + following.output_bytes > config.max_file_bytes
    )


def _next_chunk(num_pending: int, pending_bytes: int, following: _Placed | ShardEnd) -> bool:
    """True if the record that follows does not fit into the chunk."""
    return isinstance(following, _Placed) and (
        num_pending >= CHUNK_MAX_RECORDS or pending_bytes + following.chunk_bytes > CHUNK_MAX_BYTES
    )


@dataclass(slots=True)
class _Cursor:
    """The slice that is being cut: its number, its first row, and its predicted size so far."""

    slice: int
    first_row: int
    output_bytes: int = 0

    def header(
        self, shard: PlannedShard, first_row: int, num_rows: int, slice_rows: int | None, end: bool, ignored: int
    ) -> Header:
        return Header(
            shard=shard.shard,
            name=shard.name,
            hash16=shard.hash16,
            source_etag=shard.etag,
            slice=self.slice,
            first_row=first_row,
            num_rows=num_rows,
            slice_first_row=self.first_row,
            slice_rows=slice_rows,
            end=end,
            ignored=ignored,
        )


def _chunk(
    header: Header, placed: list[_Placed], started: float, attempt: str, shard: PlannedShard, config: ReadConfig
) -> Chunk:
    """The chunk as it leaves the read step; rows that could be read are `ok` until a later step says otherwise."""
    rows = []
    payload: list[bytes] = []
    offset = 0
    for entry in placed:
        record = entry.record
        readable = record.data if record.failure is None else None
        length = 0 if readable is None else len(readable)
        payload += [] if readable is None else [readable]
        if shard.format == "files":
            member = shard.members[entry.row]
            image_id, etag = member.uri, member.etag
        else:
            image_id = shard.shard if record.key is None else f"{shard.shard}#{record.key}"
            etag = shard.etag or ""
        rows.append(
            {
                "image_id": image_id,
                "shard": shard.shard,
                "key": record.key,
                "row": entry.row,
                "source_etag": etag,
                "status": "ok" if record.failure is None else "failed",
                "error_code": None if record.failure is None else str(record.failure.code),
                "error_message": None if record.failure is None else record.failure.message,
                "encoded_bytes": None if record.data is None else len(record.data),
                "true_label": record.true_label,
                **dict(zip(config.input.keep_columns, record.kept, strict=False)),
                "payload_offset": offset,
                "payload_length": length,
            }
        )
        offset += length
    schema = pa.schema([*record_schema(config.input.keep_columns), *PAYLOAD_COLUMNS])
    return Chunk(
        header=header,
        attempt=attempt,
        pass_number=config.pass_number,
        seconds={**dict.fromkeys(STEPS, 0.0), "read_s": time.perf_counter() - started},
        rows=pa.Table.from_pylist(rows, schema=schema),
        payload=pa.py_buffer(b"".join(payload)),
    )


def count_records(found: Found, at_most: int, config: InputConfig) -> int:
    """Records in a tar or Parquet object, or `at_most` if there are more; reads no more of it than that takes.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with open_reader(found.info.uri, config.store, size=found.info.size, etag=found.info.etag) as file:
            if found.kind == "parquet":
                return min(num_rows(file), at_most)
            records = read_tar(file, names=config.names, keep_columns=())
            return sum(1 for _ in islice((item for item in records if isinstance(item, Record)), at_most))
    except (NotFoundError, ChangedError, ValueError):
        return 1  # the one row that says so
    except StoreError as error:
        raise InputError(f"input {found.info.uri} cannot be read: {error}") from error


def check_inputs(found: Sequence[Found], config: InputConfig) -> None:
    """Looks into the first whole Parquet object, so that a wrong column name stops the job before any work.

    A broken one stops nothing: it becomes a failed row.

    Raises:
        InputError: it has no column with images, or lacks a column to keep; or the store does not let it be read.
    """
    for entry in found:
        if entry.kind != "parquet":
            continue
        uri = entry.info.uri
        try:
            with open_reader(uri, config.store, size=entry.info.size, etag=entry.info.etag) as file:
                schema = read_schema(file)
        except (NotFoundError, ChangedError, ValueError) as error:
            logger.warning("shard.broken shard=%s error=%s", uri, error)
            continue
        except StoreError as error:
            raise InputError(f"input {uri} cannot be read: {error}") from error
        try:
            return check_columns(schema, config.image_column, config.keep_columns)
        except ValueError as error:
            raise InputError(f"input {uri}: {error}") from error
