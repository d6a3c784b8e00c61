"""A plan on disk: written and read row group by row group, so that its length costs no memory."""

import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.plan import PLAN_SCHEMA, PlannedShard, from_table, to_table

# A row group ends at so many shards, or members of theirs: some hundred KiB.
_GROUP_SHARDS = 1024
_GROUP_MEMBERS = 8192


class PlanFile:
    """A plan in a local temporary file that goes with the object."""

    def __init__(self, shards: Iterable[PlannedShard]) -> None:
        self._file = tempfile.TemporaryFile(prefix="pvtv2-plan-")  # noqa: SIM115 - lives as long as the plan
        weakref.finalize(self, self._file.close)
        with pq.ParquetWriter(self._file, PLAN_SCHEMA, compression="zstd") as writer:
            for group in _batched(shards):
                writer.write_table(to_table(group))

    def __iter__(self) -> Iterator[PlannedShard]:
        """The shards in order; several passes over them may be under way."""
        yield from read_plan(self._file)

    def to_bytes(self) -> bytes:
        """The whole Parquet file."""
        self._file.seek(0)
        return self._file.read()


def read_plan(file: BinaryIO | pa.Buffer, wanted: Callable[[str], bool] | None = None) -> Iterator[PlannedShard]:
    """The shards of a plan's Parquet file, one row group at a time.

    Args:
        wanted: tells by its `format` whether a shard is of interest; None takes all.
    """
    source = pa.BufferReader(file) if isinstance(file, pa.Buffer) else pa.PythonFile(file, mode="r")
    plan = pq.ParquetFile(source)
    for group in range(plan.num_row_groups):
        table = plan.read_row_group(group)
        if wanted is not None:
            table = table.filter(pa.array([wanted(name) for name in table.column("format").to_pylist()], pa.bool_()))
        yield from from_table(table)


def _batched(shards: Iterable[PlannedShard]) -> Iterator[list[PlannedShard]]:
    group: list[PlannedShard] = []
    members = 0
    for shard in shards:
        group.append(shard)
        members += len(shard.members)
        if len(group) >= _GROUP_SHARDS or members >= _GROUP_MEMBERS:
            yield group
            group, members = [], 0
    if group:
        yield group
