"""A chunk: some records of one slice, in order, as one Ray row.

Ray bundles the chunks that a task yields into blocks by their size in bytes, and after a retry it skips by *index* the
blocks that were already consumed. So every attempt must yield chunks of the same sizes: measurements are columns of a
fixed width, and what has no fixed width (`header`, `rows`, `payload`) depends on the source's bytes alone.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.chunks.measures import MEASURES, SPANS, Measured, process_number

CHUNK_MAX_RECORDS = 128
# Size at which a chunk ends: decoded, or encoded where that is more. Small enough that one CPU actor answers within
# seconds and that two actors end a job together; about one hundred images of 224x224, so a GPU still gets a full pack
# out of one chunk.
CHUNK_MAX_BYTES = 16 * 2**20
# Predicted size of a chunk's output rows at which it ends earlier: feature maps are several times their image's pixels.
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
    """Which records these are. Decided by the read step; no later step changes it.

    Attributes:
        shard: canonical URI of the shard.
        name: readable part of the output file's name.
        hash16: 16 hex digits that tell this shard from every other.
        source_etag: ETag of the shard's object; None for a group of loose files, whose rows have their own.
        slice: number of the slice in its shard, from 0.
        first_row: index in the shard of the first record.
        num_rows: records in this chunk.
        slice_first_row: index in the shard of the slice's first record.
        slice_last_row: index in the shard of the slice's last record; None but in its last chunk.
        slice_rows: records that make the slice whole, or its rewrite; None but in its last chunk.
        end: True in the last chunk of the shard's last slice.
        ignored: members of the shard that were passed over, counted where they stood.
        pruned: indexes in the shard of the slice's records that have no row; empty but in its last chunk.
        overwrites: ETag of the output file in which these records exchange their rows; None: the slice is new.
        file: name of that file.
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
    slice_last_row: int | None = None
    pruned: tuple[int, ...] = ()
    overwrites: str | None = None
    file: str | None = None


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One Ray row.

    Attributes:
        header: which records these are.
        attempt: 8 hex digits of the read task's attempt.
        pass_number: which pass of the run this is, from 1.
        measured: what the steps have measured so far.
        rows: one row a record: `schema.record_schema` and what the steps add.
        payload: after read the encoded images, after decode the pixels (uint8, HWC, native size, one image after the
            other without padding), after infer nothing. `rows` has the columns `schema.PAYLOAD_COLUMNS` into it.
    """

    header: Header
    attempt: str
    pass_number: int
    measured: Measured
    rows: pa.Table
    payload: pa.Buffer

    def net_sizes(self) -> list[tuple[int, int]]:
        """(height, width) in pixels of what the network will see of each record that has a size."""
        columns = (self.rows.column(name).to_pylist() for name in ("net_height", "net_width"))
        return [(height, width) for height, width in zip(*columns, strict=True) if height and width]

    def to_table(self) -> pa.Table:
        """The chunk as an Arrow table of one row."""
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
        """The chunk in a table of one row; rows and payload are views on the table's memory."""
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
        """The chunk after a step.

        Args:
            started: `time.perf_counter()` before the step.
            rows: the new ones.
            payload: the new one; None: nothing.
            measured: what the step measured besides its seconds.
        """
        found = {**self.measured, **measured, f"{step}_s": time.perf_counter() - started}
        if step in SPANS:
            found |= {f"{step}_ended": time.time(), f"{step}_process": process_number()}
        return replace(self, rows=rows, payload=pa.py_buffer(b"") if payload is None else payload, measured=found)

    def with_measured(self, **measured: float) -> "Chunk":
        """The chunk with some measures set."""
        return replace(self, measured={**self.measured, **measured})


def _header(text: bytes) -> Header:
    values = json.loads(text)
    return Header(**{**values, "pruned": tuple(values["pruned"])})


def _one_large_binary(buffer: pa.Buffer) -> pa.Array:
    """An array of one value that shares the buffer's memory; `pa.array` would copy every pixel."""
    offsets = pa.array([0, buffer.size], pa.int64()).buffers()[1]
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, buffer])


def _only_buffer(values: pa.Array) -> pa.Buffer:
    """The memory of the one value; taking it as a scalar would copy every pixel."""
    _, offsets, data = values.buffers()
    start, end = np.frombuffer(offsets, np.int64, 2, 8 * values.offset)
    return data.slice(start, end - start) if end > start else pa.py_buffer(b"")


def set_columns(rows: pa.Table, columns: dict[str, pa.Array]) -> pa.Table:
    """The table with these columns exchanged where they exist and appended where they do not."""
    for name, values in columns.items():
        index = rows.schema.get_field_index(name)
        if index < 0:
            rows = rows.append_column(name, values)
        else:
            rows = rows.set_column(index, rows.schema.field(index), values)
    return rows


def map_chunks(table: pa.Table, step: Callable[[Chunk], Chunk]) -> pa.Table:
    """Applies a step to the one chunk of a Ray batch."""
    return step(Chunk.from_table(table)).to_table()
