"""Builds one chunk of encoded images: its rows, its payload, and the measures of reading it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import pyarrow as pa

from pipeline.chunks.chunk import Chunk, Header
from pipeline.chunks.columns import PAYLOAD_COLUMNS, record_schema
from pipeline.chunks.measures import NOTHING, Measured, process_number
from pipeline.inputs.record import Record
from pipeline.plan.planned_shard import PlannedShard
from pipeline.store.meter import store_use


@dataclass(frozen=True, slots=True)
class Placed:
    """A record with its place in the shard, and the sizes by which slices and chunks are cut.

    Attributes:
        row: index of the record in the shard.
        chunk_bytes: size by which chunks are cut.
        output_bytes: predicted size of the record's row in the output.
        pruned: True if the record counts for the bounds but gets no row.
    """

    row: int
    record: Record
    chunk_bytes: int
    output_bytes: int
    pruned: bool = False


@dataclass(frozen=True, kw_only=True)
class CutConfig:
    """Where slices end, and what every chunk of one attempt carries.

    Attributes:
        rows_per_file, max_file_bytes: rows, and predicted bytes of them, that a slice holds at most.
        attempt: 8 hex digits of the read task's attempt.
        pass_number: number of the run's pass.
        keep_columns: source columns that the records carry.
    """

    rows_per_file: int
    max_file_bytes: int
    attempt: str
    pass_number: int
    keep_columns: tuple[str, ...]


class ReadClock:
    """Measures what reading each chunk takes; bytes fetched ahead count for the chunk that is cut meanwhile."""

    def __init__(self) -> None:
        self._started, self._used = time.perf_counter(), store_use()

    def measured(self) -> Measured:
        """Returns the measures of the chunk that was read since the last call."""
        before, self._used = self._used, store_use()
        return {
            **NOTHING,
            **self._used.since(before),
            "read_s": time.perf_counter() - self._started,
            "read_ended": time.time(),
            "read_process": process_number(),
        }

    def begin_next(self) -> None:
        """Begins the next chunk; time in which no chunk was asked for is not counted, but requests of threads are."""
        self._started = time.perf_counter()


def build_chunk(
    header: Header, placed: Sequence[Placed], clock: ReadClock, shard: PlannedShard, config: CutConfig
) -> Chunk:
    """Returns the chunk as it leaves the read step; a row is `ok` if it was read, until a later step fails it."""
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
        # A record that could not be read has no kept values.
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
    """Returns the columns that say where each record lies."""
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
