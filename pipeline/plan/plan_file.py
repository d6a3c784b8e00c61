"""A plan on disk: written and read row group by row group, so that its length costs no memory."""

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


class OwnGroups:
    """The groups of loose files that earlier plans made themselves, in a temporary file that goes with the object.

    A plan also repeats groups that it knew from earlier ones. Those are left out, so that this grows with the files
    that there are, and not with the runs that there were.
    """

    def __init__(self, plans: Iterable[BinaryIO]) -> None:
        self._file = tempfile.TemporaryFile(prefix="pvtv2-groups-")  # noqa: SIM115 - lives as long as the object
        weakref.finalize(self, self._file.close)
        # Where the row groups of each plan end.
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
        """The groups of each plan, as the plans came; all may be under way at once."""
        kept = _open(self._file)
        return [self._read(kept, range(*ends)) for ends in pairwise(self._ends)]

    def _read(self, kept: pq.ParquetFile, row_groups: Iterable[int]) -> Iterator[PlannedShard]:
        for number in row_groups:
            yield from from_table(kept.read_row_group(number))


def planned_objects(plans: Iterable[BinaryIO]) -> Iterator[str]:
    """`hash16` of each tar and Parquet object in these plans; the members of groups are not read."""
    for plan in plans:
        file = _open(plan)
        for number in range(file.num_row_groups):
            table = file.read_row_group(number, columns=["hash16", "format"])
            yield from table.filter(pc.not_equal(table.column("format"), LOOSE_FILES)).column("hash16").to_pylist()


def read_plan(file: BinaryIO) -> Iterator[PlannedShard]:
    """The shards of a plan's Parquet file, one row group at a time."""
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
