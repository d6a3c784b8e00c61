"""Builds one chunk of encoded images: its rows, its payload, and the measurements of the read step."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import pyarrow as pa

from pipeline.chunks.chunk import Chunk, Header
from pipeline.chunks.columns import PAYLOAD_COLUMNS, record_schema
from pipeline.chunks.measures import NOTHING, Measured, process_number
from pipeline.inputs.ids import object_id, record_id
from pipeline.inputs.record import Record
from pipeline.plan.planned_shard import PlannedShard
from pipeline.store.meter import store_use


@dataclass(frozen=True, slots=True)
class Placed:
    """A record with its row in the shard, and the sizes by which slices and chunks are cut.

    Attributes:
        row: index of the record in the shard.
        chunk_bytes: the larger of the record's encoded size and decoded size in bytes; 0 if there is no image. Chunks
            are cut by this size.
        output_bytes: predicted size in bytes of the record's row in the output, by which slices and chunks are cut.
        pruned: True if the record counts for the bounds of slices and chunks, but gets no row in the output.
    """

    row: int
    record: Record
    chunk_bytes: int
    output_bytes: int
    pruned: bool = False


@dataclass(frozen=True, kw_only=True)
class CutConfig:
    """Bounds of slices, and values that every chunk of one attempt carries.

    Attributes:
        rows_per_file, max_file_bytes: largest number of rows, and largest predicted size in bytes, of a slice.
        attempt: 8 random hex digits that identify an attempt of the read task.
        pass_number: number of the run's pass.
        keep_columns: source columns that the records carry.
        rules: version of the rules of reading.
    """

    rows_per_file: int
    max_file_bytes: int
    attempt: str
    pass_number: int
    keep_columns: tuple[str, ...]
    rules: int


class ReadClock:
    """Measures the seconds and the requests that reading each chunk takes.

    Bytes that are fetched ahead count for the chunk that is cut at that time.
    """

    def __init__(self) -> None:
        self._started, self._used = time.perf_counter(), store_use()

    def measured(self) -> Measured:
        """Returns the measurements of the chunk that was read since the last call."""
        before, self._used = self._used, store_use()
        return {
            **NOTHING,
            **self._used.since(before),
            "read_s": time.perf_counter() - self._started,
            "read_ended": time.time(),
            "read_process": process_number(),
        }

    def begin_next(self) -> None:
        """Starts the clock for the next chunk.

        The time in which no chunk was asked for is not counted, but requests that threads made meanwhile are counted.
        """
        self._started = time.perf_counter()


def build_chunk(
    header: Header, placed: Sequence[Placed], clock: ReadClock, shard: PlannedShard, config: CutConfig
) -> Chunk:
    """Returns the chunk as it leaves the read step.

    A row has the status `ok` if its record was read. A later step may change the status to `failed`.
    """
    records = [entry.record for entry in placed]
    payload = [b"" if record.data is None or record.failure is not None else record.data for record in records]
    lengths = [len(data) for data in payload]
    columns: dict[str, list[Any]] = {
        **_sources(placed, shard, config.rules),
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


def _sources(placed: Sequence[Placed], shard: PlannedShard, rules: int) -> dict[str, list[Any]]:
    """Returns the columns that say where each record lies."""
    keys = [entry.record.key for entry in placed]
    if shard.is_group:
        members = [shard.members[entry.row] for entry in placed]
        ids, etags = [object_id(member.uri, rules) for member in members], [member.etag for member in members]
    else:
        ids = [record_id(shard.shard, key, rules) for key in keys]
        etags = [shard.etag] * len(placed)
    return {
        "image_id": ids,
        "shard": [shard.shard] * len(placed),
        "key": keys,
        "row": [entry.row for entry in placed],
        "source_etag": etags,
    }
