"""The rows of a plan, one for each shard that a run has to read, and their table in Parquet.

Loose files form groups. The plan that made a group keeps its members, so that a file never moves to another group.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any, Literal

import pyarrow as pa

from pipeline.inputs.formats import LOOSE_FILES
from pipeline.inputs.loose_files import Member
from pipeline.output.slice_chain import DoneSlice

Action = Literal["new", "continue", "replace", "rewrite"]


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A published slice in which some rows are exchanged or taken out.

    Attributes:
        slice: number of the slice in its shard.
        file, file_etag: name of the output file, and ETag of the version that the rewrite replaces; if the file has
            another ETag when the rewrite is published, the rewrite changes nothing.
        first_row, last_row: first and last row of the slice.
        end: True if the slice is the last of its shard.
        redo: rows that are read again, ascending.
        pruned: rows from `first_row` to `last_row` that the file lacks after the rewrite, ascending; rows that the file
            lacked before are included.
    """

    slice: int
    file: str
    file_etag: str
    first_row: int
    last_row: int
    end: bool
    redo: tuple[int, ...]
    pruned: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class PlannedShard:
    """One row of the plan: a shard, and the work that is left in the shard. One read task does this work.

    Attributes:
        shard: canonical URI of the object; `files:<hash16>` for a group of loose files.
        name: readable part of the names of its output files.
        hash16: 16 hex digits that identify the shard.
        format: name of its input format; `LOOSE_FILES` for a group of loose files.
        action: `new` for a shard without rows; `continue` for a shard that an earlier run began; `replace` for a source
            that changed; `rewrite` if only published slices are rewritten.
        etag: ETag of the object when it was listed; None for a group of loose files.
        size: bytes of the object, or of all members of a group.
        num_records: number of records that the shard holds or that are taken of it; None takes all records.
        members: loose files of a group, in order; empty for any other shard.
        known: True if an earlier plan made the group and keeps its members.
        pruned: records that get no row in slices that are not published yet; only in groups.
        done: published slices, which are not read again as a whole.
        rewrites: slices that are read again in part.
    """

    shard: str
    name: str
    hash16: str
    format: str
    action: Action
    etag: str | None
    size: int
    num_records: int | None
    members: tuple[Member, ...] = ()
    known: bool = False
    pruned: tuple[int, ...] = ()
    done: tuple[DoneSlice, ...] = ()
    rewrites: tuple[Rewrite, ...] = ()

    @property
    def is_group(self) -> bool:
        """True for a group of loose files."""
        return self.format == LOOSE_FILES

    @property
    def num_todo(self) -> int | None:
        """Number of records that are read; None if the number of records in the object is not known."""
        redo = sum(len(rewrite.redo) for rewrite in self.rewrites)
        if self.action == "rewrite":
            return redo
        if self.num_records is None:
            return None
        done = sum(slice.last_row - slice.first_row + 1 for slice in self.done)
        return self.num_records - done - len(self.pruned) + redo


_ROWS = pa.list_(pa.int64())
PLAN_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.string()),
        pa.field("name", pa.string()),
        pa.field("hash16", pa.string()),
        pa.field("format", pa.string()),
        pa.field("action", pa.string()),
        pa.field("etag", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("num_records", pa.int64()),
        pa.field(
            "members",
            pa.list_(
                pa.struct(
                    [
                        pa.field("uri", pa.string()),
                        pa.field("key", pa.string()),
                        pa.field("size", pa.int64()),
                        pa.field("etag", pa.string()),
                        pa.field("true_label", pa.string()),
                    ]
                )
            ),
        ),
        pa.field("known", pa.bool_()),
        pa.field("drop", _ROWS),
        pa.field(
            "done",
            pa.list_(
                pa.struct(
                    [
                        pa.field("slice", pa.int64()),
                        pa.field("first_row", pa.int64()),
                        pa.field("last_row", pa.int64()),
                    ]
                )
            ),
        ),
        pa.field(
            "rewrites",
            pa.list_(
                pa.struct(
                    [
                        pa.field("slice", pa.int64()),
                        pa.field("file", pa.string()),
                        pa.field("file_etag", pa.string()),
                        pa.field("first_row", pa.int64()),
                        pa.field("last_row", pa.int64()),
                        pa.field("end", pa.bool_()),
                        pa.field("redo", _ROWS),
                        pa.field("drop", _ROWS),
                    ]
                )
            ),
        ),
    ]
)


def to_table(shards: Iterable[PlannedShard]) -> pa.Table:
    """Returns the shards as a table of `PLAN_SCHEMA`, one row for each."""
    rows = list(shards)
    names = [name for name in PLAN_SCHEMA.names if name not in ("members", "drop")]
    columns = {name: [getattr(row, name) for row in rows] for name in names}
    columns["drop"] = [row.pruned for row in rows]
    columns["done"] = [[asdict(done) for done in row.done] for row in rows]
    columns["rewrites"] = [[{**asdict(rewrite), "drop": rewrite.pruned} for rewrite in row.rewrites] for row in rows]
    arrays = {name: pa.array(values, PLAN_SCHEMA.field(name).type) for name, values in columns.items()}
    # A row may have thousands of members, so their columns are built without a dictionary for each member.
    members = [member for row in rows for member in row.members]
    fields = list(PLAN_SCHEMA.field("members").type.value_type)
    values = [pa.array([getattr(member, field.name) for member in members], field.type) for field in fields]
    offsets = pa.array(accumulate((len(row.members) for row in rows), initial=0), pa.int32())
    arrays["members"] = pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(values, fields=fields))
    return pa.table([arrays[name] for name in PLAN_SCHEMA.names], schema=PLAN_SCHEMA)


def from_table(table: pa.Table) -> list[PlannedShard]:
    """Returns the shards in a plan's table."""
    return [_shard(row) for row in table.to_pylist()]


def _shard(row: dict[str, Any]) -> PlannedShard:
    pruned = row.pop("drop")
    return PlannedShard(
        **{
            **row,
            "members": tuple(Member(**member) for member in row["members"] or ()),
            "pruned": tuple(pruned or ()),
            "done": tuple(DoneSlice(**done) for done in row["done"] or ()),
            "rewrites": tuple(map(_rewrite, row["rewrites"] or ())),
        }
    )


def _rewrite(row: dict[str, Any]) -> Rewrite:
    pruned = row.pop("drop")
    return Rewrite(**{**row, "redo": tuple(row["redo"]), "pruned": tuple(pruned)})
