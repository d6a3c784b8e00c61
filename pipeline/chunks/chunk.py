"""A chunk: some records of one slice, in order, as one Ray row.

Ray bundles the chunks that a task yields into blocks by their size in bytes. After a retry, Ray skips by *index* the
blocks that were consumed before. So every attempt must yield chunks of the same sizes: measurements are columns of a
fixed width, and the columns without a fixed width (`header`, `rows`, `payload`) depend on the source's bytes alone.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.chunks.measures import MEASURES, SPANS, Measured, process_number

CHUNK_MAX_RECORDS = 128
# A chunk ends at this size, decoded or encoded, whichever is larger. One CPU actor answers a chunk of this size within
# seconds, and two actors end a job at about the same time. A chunk holds about one hundred images of 224x224 pixels, so
# that a GPU gets a full pack out of one chunk.
CHUNK_MAX_BYTES = 16 * 2**20
# A chunk ends earlier where its output rows are predicted to reach this size: feature maps can be several times as
# large as the pixels of their images.
CHUNK_MAX_OUTPUT_BYTES = 64 * 2**20
_MEASURED = pa.list_(pa.float64(), len(MEASURES))
_SCHEMA = pa.schema(
    [
        pa.field("header", pa.binary()),
        pa.field("attempt", pa.string()),
        pa.field("pass_number", pa.int64()),
        pa.field("measured", _MEASURED),
        pa.field("rows", pa.large_binary()),
        pa.field("payload", pa.large_binary()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Header:
    """The place of a chunk's records in their slice and shard.

    The read step fills the header, and no later step changes the header.

    Attributes:
        shard: Canonical URI of the shard.
        name: Readable part of the output file's name.
        hash16: First 16 hex digits of a hash that identifies the shard.
        source_etag: ETag of the shard's object; None for a group of loose files, whose rows have an ETag each.
        slice: Number of the slice in its shard, from 0.
        first_row: Index of the chunk's first record in the shard.
        num_rows: Number of records in the chunk.
        slice_first_row: Index of the slice's first record in the shard.
        slice_last_row: Index of the slice's last record in the shard; None in all chunks of the slice but the last.
        slice_rows: Number of records that complete the slice, or the rewrite of its file; None in all chunks but the
            slice's last.
        end: True in the last chunk of the shard's last slice.
        ignored: Number of members of the shard that the reader skipped while it read the chunk's records.
        passed_over: Number of these members by ending, see `pipeline.chunks.passed_over`.
        pruned: Indexes in the shard of records of the slice that get no row; filled in the slice's last chunk alone.
        overwrites: ETag of the output file whose rows these records replace; None for a new slice.
        file: Name of the output file whose rows these records replace; None for a new slice.
    """

    shard: str
    name: str
    hash16: str
    source_etag: str | None
    slice: int
    first_row: int
    num_rows: int
    slice_first_row: int
    slice_rows: int | None
    end: bool
    ignored: int
    passed_over: Mapping[str, int] = field(default_factory=dict)
    slice_last_row: int | None = None
    pruned: tuple[int, ...] = ()
    overwrites: str | None = None
    file: str | None = None


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One Ray row: a chunk's header, measurements, rows and payload.

    Attributes:
        header: Place of the records in their slice and shard.
        attempt: 8 hex digits that identify the attempt of the read task.
        pass_number: Number of the pass of the run, from 1.
        measured: Measurements of the steps that the chunk has passed, by name.
        rows: One row for each record: the columns of `columns.record_schema`, and the columns that the steps added.
        payload: Encoded images after the read step; pixels after the decode step (uint8, HWC, native size, one image
            after the other without padding); empty after the infer step. The columns `columns.PAYLOAD_COLUMNS` of
            `rows` say where each image lies in the payload.
    """

    header: Header
    attempt: str
    pass_number: int
    measured: Measured
    rows: pa.Table
    payload: pa.Buffer

    def net_sizes(self) -> list[tuple[int, int]]:
        """Returns the (height, width) in pixels that the network will see, for each record that has a size."""
        columns = (self.rows.column(name).to_pylist() for name in ("net_height", "net_width"))
        return [(height, width) for height, width in zip(*columns, strict=True) if height and width]

    def to_table(self) -> pa.Table:
        """Returns the chunk as an Arrow table of one row."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.rows.schema) as writer:
            writer.write_table(self.rows)
        values = [
            pa.array([json.dumps(asdict(self.header)).encode()], pa.binary()),
            pa.array([self.attempt]),
            pa.array([self.pass_number], pa.int64()),
            pa.array([[self.measured[name] for name in MEASURES]], _MEASURED),
            _one_large_binary(sink.getvalue()),
            _one_large_binary(self.payload),
        ]
        return pa.table(values, schema=_SCHEMA)

    @staticmethod
    def from_table(table: pa.Table) -> "Chunk":
        """Returns the chunk in a table of one row; its rows and its payload are views of the table's memory."""
        if table.num_rows != 1:
            raise ValueError(f"a chunk is one row, not {table.num_rows}")
        batch = next(batch for batch in table.to_batches() if batch.num_rows)
        return Chunk(
            header=_header(batch.column("header")[0].as_py()),
            attempt=batch.column("attempt")[0].as_py(),
            pass_number=batch.column("pass_number")[0].as_py(),
            measured=dict(zip(MEASURES, batch.column("measured")[0].as_py(), strict=True)),
            rows=pa.ipc.open_stream(_only_buffer(batch.column("rows"))).read_all(),
            payload=_only_buffer(batch.column("payload")),
        )

    def after(
        self, step: str, started: float, rows: pa.Table, payload: pa.Buffer | None = None, **measured: Any
    ) -> "Chunk":
        """Returns the chunk with the rows, the payload and the measurements that a step produced.

        Args:
            started: `time.perf_counter()` at the start of the step.
            rows: Rows of the chunk after the step.
            payload: Payload of the chunk after the step; None for an empty payload.
            measured: Measurements of the step besides its seconds.
        """
        found = {**self.measured, **measured, f"{step}_s": time.perf_counter() - started}
        if step in SPANS:
            found |= {f"{step}_ended": time.time(), f"{step}_process": process_number()}
        return replace(self, rows=rows, payload=pa.py_buffer(b"") if payload is None else payload, measured=found)

    def with_measured(self, **measured: float) -> "Chunk":
        """Returns a copy of the chunk in which some measurements have new values."""
        return replace(self, measured={**self.measured, **measured})


def _header(text: bytes) -> Header:
    values = json.loads(text)
    return Header(**{**values, "pruned": tuple(values["pruned"])})


def _one_large_binary(buffer: pa.Buffer) -> pa.Array:
    """Returns an array of one value that shares the buffer's memory. `pa.array` would copy every pixel."""
    offsets = pa.array([0, buffer.size], pa.int64()).buffers()[1]
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, buffer])


def _only_buffer(values: pa.Array) -> pa.Buffer:
    """Returns the memory of an array's only value. A scalar of Arrow would copy every pixel."""
    _, offsets, data = values.buffers()
    start, end = np.frombuffer(offsets, np.int64, 2, 8 * values.offset)
    return data.slice(start, end - start) if end > start else pa.py_buffer(b"")


def set_columns(rows: pa.Table, columns: dict[str, pa.Array]) -> pa.Table:
    """Returns the table with some columns set: an existing column is replaced, a new column is appended."""
    for name, values in columns.items():
        index = rows.schema.get_field_index(name)
        if index < 0:
            rows = rows.append_column(name, values)
        else:
            rows = rows.set_column(index, rows.schema.field(index), values)
    return rows


def map_chunks(table: pa.Table, step: Callable[[Chunk], Chunk]) -> pa.Table:
    """Applies a step to the one chunk of a Ray batch; returns the resulting chunk as a Ray batch."""
    return step(Chunk.from_table(table)).to_table()
