"""A plan on disk, written and read one row group at a time, so that long plans need no more memory than short plans."""

import tempfile
import weakref
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.inputs.formats import LOOSE_FILES
from pipeline.plan.planned_shard import PLAN_SCHEMA, PlannedShard, from_table, to_table

# Largest numbers of shards in a row group, and of members of these shards: a row group takes some hundred KiB.
_GROUP_SHARDS = 1024
_GROUP_MEMBERS = 8192


class PlanFile:
    """A plan in a local temporary file, which is deleted together with this object."""

    def __init__(self, shards: Iterable[PlannedShard]) -> None:
        self._file = tempfile.TemporaryFile(prefix="pvtv2-plan-")  # noqa: SIM115 - lives as long as the plan
        weakref.finalize(self, self._file.close)
        with pq.ParquetWriter(self._file, PLAN_SCHEMA, compression="zstd") as writer:
            for group in _batched(shards):
                writer.write_table(to_table(group))

    def __iter__(self) -> Iterator[PlannedShard]:
        """Yields the shards in order; several iterations may be under way at once."""
        yield from read_plan(self._file)

    def to_bytes(self) -> bytes:
        """Returns the whole Parquet file."""
        self._file.seek(0)
        return self._file.read()


class OwnGroups:
    """The groups of loose files that earlier plans made, in a temporary file that is deleted together with this object.

    A plan repeats groups that earlier plans made. The temporary file leaves out repeated groups, so that it grows with
    the number of loose files and not with the number of runs.
    """

    def __init__(self, plans: Iterable[BinaryIO]) -> None:
        self._file = tempfile.TemporaryFile(prefix="pvtv2-groups-")  # noqa: SIM115 - lives as long as the object
        weakref.finalize(self, self._file.close)
        # The number of row groups after each plan.
        self._ends = [0]
        with pq.ParquetWriter(self._file, PLAN_SCHEMA, compression="zstd") as writer:
            for plan in plans:
                self._ends.append(self._ends[-1])
                for table in _row_groups(plan):
                    is_group = pc.and_not(pc.equal(table.column("format"), LOOSE_FILES), table.column("known"))
                    own = table.filter(is_group)
                    if own.num_rows:
                        writer.write_table(own)
                        self._ends[-1] += 1

    def by_plan(self) -> list[Iterator[PlannedShard]]:
        """Returns, for each plan in order, an iterator over the groups that the plan made.

        All iterators may be used at the same time.
        """
        kept = _open(self._file)
        return [self._read(kept, range(*ends)) for ends in pairwise(self._ends)]

    def _read(self, kept: pq.ParquetFile, row_groups: Iterable[int]) -> Iterator[PlannedShard]:
        for number in row_groups:
            yield from from_table(kept.read_row_group(number))


def planned_objects(plans: Iterable[BinaryIO]) -> Iterator[str]:
    """Yields the `hash16` of each planned object that is no group; the members of groups are not read."""
    for plan in plans:
        file = _open(plan)
        for number in range(file.num_row_groups):
            table = file.read_row_group(number, columns=["hash16", "format"])
            yield from table.filter(pc.not_equal(table.column("format"), LOOSE_FILES)).column("hash16").to_pylist()


def read_plan(file: BinaryIO) -> Iterator[PlannedShard]:
    """Yields the shards of a plan's Parquet file, reading one row group at a time."""
    for table in _row_groups(file):
        yield from from_table(table)


def _open(file: BinaryIO) -> pq.ParquetFile:
    return pq.ParquetFile(pa.PythonFile(file, mode="r"))


def _row_groups(file: BinaryIO) -> Iterator[pa.Table]:
    plan = _open(file)
    for number in range(plan.num_row_groups):
        yield plan.read_row_group(number)


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
