"""The plan: which shards this run reads, decided by the driver before any work, and kept as a Parquet table.

Loose files become groups ("virtual shards") whose membership is kept in the plan, so that a file never moves to another
group. A plan that was begun is finished first: what an earlier run left undone stands at the head of the next plan,
under its own names and ETags.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import InputConfig
from pipeline.layout import ShardState, hash16, readable_name
from pipeline.listing import Found, Survey
from pipeline.output import PublishedFile

# Loose files in a group, about: enough that a read task is worth its overhead, however small the slices are.
_GROUP_FILES = 4096

ShardFormat = Literal["tar", "parquet", "files"]


@dataclass(frozen=True, slots=True)
class Member:
    """One loose object of a virtual shard, as it was listed."""

    uri: str
    key: str
    size: int
    etag: str
    true_label: str | None


@dataclass(frozen=True, slots=True)
class DoneSlice:
    """A slice that is published already: its number and its rows, both ends included."""

    slice: int
    first_row: int
    last_row: int


@dataclass(frozen=True, kw_only=True)
class PlannedShard:
    """One row of the plan: one read task.

    Attributes:
        shard: canonical URI; `files:<hash16>` for a group of loose files.
        name: readable part of the output files' names.
        etag: the object's ETag when it was listed; None for a group of loose files.
        num_records: how many records to read; None: as many as there are.
        members: the loose files, in order; empty for a tar or Parquet object.
        done: slices that are not read again.
    """

    shard: str
    name: str
    hash16: str
    format: ShardFormat
    etag: str | None
    size: int
    num_records: int | None
    members: tuple[Member, ...] = ()
    done: tuple[DoneSlice, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What this run has to do.

    Attributes:
        shards: in order; those an earlier run left undone come first.
        num_complete: listed shards (loose files: groups) whose rows are all published.
        num_carried: shards taken over from an unfinished plan.
        num_changed: published shards whose source has another ETag now; their rows stay as they are.
        ignored: listed names that were passed over.
    """

    shards: tuple[PlannedShard, ...]
    num_complete: int
    num_carried: int
    num_changed: int
    ignored: int


PLAN_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.string()),
        pa.field("name", pa.string()),
        pa.field("hash16", pa.string()),
        pa.field("format", pa.string()),
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
    ]
)


def to_table(shards: Iterable[PlannedShard]) -> pa.Table:
    """The shards as a table of `PLAN_SCHEMA`, one row each."""
    return pa.Table.from_pylist([asdict(shard) for shard in shards], schema=PLAN_SCHEMA)


def from_table(table: pa.Table) -> list[PlannedShard]:
    """The shards in a plan's table."""
    return [
        PlannedShard(
            **{
                **row,
                "members": tuple(Member(**member) for member in row["members"] or ()),
                "done": tuple(DoneSlice(**done) for done in row["done"] or ()),
            }
        )
        for row in table.to_pylist()
    ]


def to_parquet(shards: Iterable[PlannedShard]) -> bytes:
    """The plan as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(to_table(shards), buffer, compression="zstd")
    return buffer.getvalue()


def from_parquet(data: bytes) -> list[PlannedShard]:
    """The shards in a plan's Parquet file."""
    return from_table(pq.read_table(io.BytesIO(data), schema=PLAN_SCHEMA))


def make_plan(
    survey: Survey,
    published: Sequence[PublishedFile],
    states: Mapping[str, ShardState],
    earlier: Sequence[PlannedShard],
    config: InputConfig,
    rows_per_file: int,
    count_records: Callable[[Found, int], int],
) -> Plan:
    """What is still to do, as a pure function of listings.

    Args:
        survey: what the inputs hold.
        published: the output's files.
        states: the same by shard.
        earlier: the shards of all earlier plans over this output, oldest first.
        rows_per_file: rows at which a slice ends; a group of loose files is a multiple of it.
        count_records: (tar or Parquet object, at most) -> records in it; called only under `--limit`.
    """
    done: dict[str, list[DoneSlice]] = {}
    etags: dict[str, str | None] = {}
    for file in published:
        footer = file.footer
        done.setdefault(footer.hash16, []).append(DoneSlice(footer.slice, footer.first_row, footer.last_row))
        etags[footer.hash16] = footer.source_etag

    # Slices that are published pin the version of their shard: plans of other versions were overtaken.
    known = {shard.hash16: shard for shard in earlier if etags.get(shard.hash16, shard.etag) == shard.etag}
    listed = {found.info.uri: found for found in survey.found if found.kind != "files"}
    carried = [
        shard
        for shard in known.values()
        if not (shard.hash16 in states and states[shard.hash16].complete)
        # A shard of which nothing is published may be read as it is now, under the same name.
        and (shard.format == "files" or shard.hash16 in done or shard.shard not in listed)
    ]
    budget = _Budget(config.limit, used=sum(shard.num_records or 0 for shard in known.values()))
    taken = {shard.hash16 for shard in carried}
    covered = {member.uri for shard in known.values() for member in shard.members}

    fresh: list[PlannedShard] = []
    num_complete = num_changed = 0
    for found in listed.values():
        code = hash16(found.info.uri)
        if code in states and states[code].complete:
            num_complete += 1
            num_changed += etags.get(code) != found.info.etag
        elif code not in taken and (shard := _object_shard(found, code, budget, count_records)) is not None:
            # Published slices pin the version, also where the plan that they were read under is gone.
            fresh.append(replace(shard, etag=etags.get(code, shard.etag)))
    num_complete += sum(
        shard.format == "files" and shard.hash16 in states and states[shard.hash16].complete for shard in known.values()
    )
    loose = [found for found in survey.found if found.kind == "files" and found.info.uri not in covered]
    group_size = rows_per_file * max(1, _GROUP_FILES // rows_per_file)
    fresh += _group(loose[: budget.take(len(loose))], group_size)

    shards = [
        replace(shard, done=tuple(sorted(done.get(shard.hash16, []), key=lambda d: d.slice)))
        for shard in [*carried, *fresh]
    ]
    return Plan(
        shards=tuple(shards),
        num_complete=num_complete,
        num_carried=len(carried),
        num_changed=num_changed,
        ignored=survey.ignored,
    )


class _Budget:
    """How many records `--limit` still allows."""

    def __init__(self, limit: int | None, used: int) -> None:
        self.left = None if limit is None else max(0, limit - used)

    def take(self, wanted: int) -> int:
        if self.left is None:
            return wanted
        taken = min(wanted, self.left)
        self.left -= taken
        return taken


def _object_shard(
    found: Found, code: str, budget: _Budget, count_records: Callable[[Found, int], int]
) -> PlannedShard | None:
    """The plan row of a tar or Parquet object; None if the limit is used up."""
    num_records = None
    if budget.left is not None:
        if budget.left == 0:
            return None
        num_records = budget.take(count_records(found, budget.left))
    return PlannedShard(
        shard=found.info.uri,
        name=readable_name(PurePosixPath(found.name).name),
        hash16=code,
        format=found.kind,
        etag=found.info.etag,
        size=found.info.size,
        num_records=num_records,
    )


def _group(loose: Sequence[Found], group_size: int) -> Iterator[PlannedShard]:
    """Groups of loose files in listing order; a key that repeats within a group gets `@<row>`."""
    for start in range(0, len(loose), group_size):
        group = loose[start : start + group_size]
        code = hash16("\n".join(found.info.uri for found in group))
        seen: set[str] = set()
        members = []
        for row, found in enumerate(group):
            key = f"{found.name}@{row}" if found.name in seen else found.name
            seen.add(found.name)
            members.append(Member(found.info.uri, key, found.info.size, found.info.etag, found.true_label))
        yield PlannedShard(
            shard=f"files:{code}",
            name=readable_name(PurePosixPath(group[0].root).name),
            hash16=code,
            format="files",
            etag=None,
            size=sum(member.size for member in members),
            num_records=len(members),
            members=tuple(members),
        )
