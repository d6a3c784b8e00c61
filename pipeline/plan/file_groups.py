"""Groups of loose files: makes new groups, and plans the groups that earlier plans made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from pipeline.inputs.formats import FILES_SCHEME, LOOSE_FILES
from pipeline.inputs.listing import Found
from pipeline.inputs.loose_files import Member
from pipeline.output.layout import hash16, readable_name, version_of
from pipeline.output.published import OutputRow, PublishedFile
from pipeline.output.slice_chain import chain_of
from pipeline.plan.planned_shard import PlannedShard, Rewrite
from pipeline.store.uris import is_inside


@dataclass(slots=True)
class Findings:
    """Counts of one group that was planned.

    Attributes:
        is_ours: False if no file of the group lies below the inputs of this run.
        changed, retried: numbers of records that are read again because they changed, and because they failed.
        removed, pruned: number of rows whose source is gone, and number of such rows that this run takes out.
        extra: output files that contradict the published slices, see `Chain`.
    """

    is_ours: bool = True
    changed: int = 0
    retried: int = 0
    removed: int = 0
    pruned: int = 0
    extra: tuple[PublishedFile, ...] = ()


class OpenGroup:
    """A group of an earlier plan, and what the listing has shown so far about its members."""

    def __init__(self, shard: PlannedShard) -> None:
        self.shard = shard
        self.found: dict[int, Found] = {}
        self.in_older_group: set[int] = set()
        self._num_left = len(shard.members)

    def see(self, row: int, found: Found | None, *, in_older_group: bool) -> None:
        """Notes whether one member is listed.

        Args:
            row: index of the member in the group.
            found: the listed object; None if the member is not listed.
            in_older_group: True if the member belongs to an older group, and so has no row in this group.
        """
        if in_older_group:
            self.in_older_group.add(row)
        elif found is not None:
            self.found[row] = found
        self._num_left -= 1

    @property
    def is_seen(self) -> bool:
        """True if the listing is past every member."""
        return self._num_left == 0


def new_group(found: Sequence[Found]) -> PlannedShard:
    """Returns a new group of files that no earlier plan knows, in the order of `found`.

    If a key occurs again in the group, the later key gets `@<row>` at its end.
    """
    code = hash16("\n".join(entry.info.uri for entry in found))
    seen: set[str] = set()
    members = []
    for row, entry in enumerate(found):
        key = f"{entry.name}@{row}" if entry.name in seen else entry.name
        seen.add(entry.name)
        members.append(Member(entry.info.uri, key, entry.info.size, entry.info.etag, entry.true_label))
    return PlannedShard(
        shard=f"{FILES_SCHEME}{code}",
        name=readable_name(PurePosixPath(found[0].root).name),
        hash16=code,
        format=LOOSE_FILES,
        action="new",
        etag=None,
        size=sum(member.size for member in members),
        num_records=len(members),
        members=tuple(members),
    )


def plan_group(
    group: OpenGroup,
    files: Sequence[PublishedFile],
    roots: Sequence[str],
    prune: bool,
    retries: Callable[[str | None], bool],
    read_rows: Callable[[PublishedFile], Sequence[OutputRow]],
) -> tuple[PlannedShard | None, Findings]:
    """Returns the work that is left in a group, as a row of the plan, and the counts of the group.

    The row of the plan is None if no work is left.

    Args:
        group: a group of an earlier plan; the listing is past all its members.
        files: output files of the group.
        roots: inputs of this run; a member outside of these inputs is taken to be unchanged.
        prune: True takes out the rows of members that are gone.
        retries: function that returns True for an error code whose records are tried again.
        read_rows: function that returns the rows of an output file.
    """
    shard = group.shard
    members = [_current(member, group.found.get(row), roots) for row, member in enumerate(shard.members)]
    chain = chain_of(files)
    findings = Findings(extra=chain.extra)
    if not any(is_inside(member.uri, root) for member in members for root in roots):
        return None, Findings(is_ours=False)
    gone = {row for row, member in enumerate(members) if member.etag is None}
    unwanted = group.in_older_group | (gone if prune else set())
    rewrites = []
    for file in chain.files:
        rewrite = _rewrite(file, members, gone, unwanted, group.in_older_group, retries, read_rows, findings)
        if rewrite is not None:
            rewrites.append(rewrite)
    if chain.complete and not rewrites:
        return None, findings
    published = {row for file in chain.files for row in range(file.first_row, file.last_row + 1)}
    pruned = () if chain.complete else tuple(sorted(unwanted - published))
    planned = replace(
        shard,
        action="rewrite" if chain.complete else "continue",
        members=tuple(members),
        size=sum(member.size for member in members if member.etag is not None),
        known=True,
        pruned=pruned,
        done=chain.done(),
        rewrites=tuple(rewrites),
    )
    return planned, findings


def without_reading(planned: PlannedShard, files: Sequence[PublishedFile]) -> PlannedShard | None:
    """Returns the rewrites of a group that only take pruned rows out of published slices; None if there are none.

    No image is read for such a rewrite. If some slices of the group are not published yet, the result is None as well:
    the run that will read these slices also takes out the pruned rows.
    """
    before = {file.file: set(file.pruned) for file in files}
    exchanges = [(rewrite, before[rewrite.file].union(rewrite.pruned)) for rewrite in planned.rewrites]
    rewrites = tuple(
        replace(rewrite, redo=(), pruned=tuple(sorted(pruned)))
        for rewrite, pruned in exchanges
        if pruned > before[rewrite.file]
    )
    return replace(planned, rewrites=rewrites) if rewrites and planned.action == "rewrite" else None


def _current(member: Member, found: Found | None, roots: Sequence[str]) -> Member:
    """Returns the member with its present size and ETag; the ETag is None if the member is gone."""
    if found is not None:
        is_same = (found.info.size, found.info.etag) == (member.size, member.etag)
        return member if is_same else replace(member, size=found.info.size, etag=found.info.etag)
    if any(is_inside(member.uri, root) for root in roots):
        return replace(member, etag=None)
    return member


def _rewrite(
    file: PublishedFile,
    members: Sequence[Member],
    gone: set[int],
    unwanted: set[int],
    in_older_group: set[int],
    retries: Callable[[str | None], bool],
    read_rows: Callable[[PublishedFile], Sequence[OutputRow]],
    findings: Findings,
) -> Rewrite | None:
    """Returns the rewrite that one published slice needs, and counts its rows in `findings`; None if it needs none."""
    rows = range(file.first_row, file.last_row + 1)
    there = [row for row in rows if row not in file.pruned]
    is_current = file.source_etag == version_of((members[row].uri, members[row].etag) for row in there)
    may_retry = file.failed > 0 and any(map(retries, file.footer.totals.failed_by_code))
    is_back = [row for row in file.pruned if row not in gone and row not in in_older_group]
    redo = set(is_back)
    findings.changed += len(is_back)
    if not is_current or may_retry:
        for entry in read_rows(file):
            etag = members[entry.row].etag
            if etag is None or entry.row in in_older_group:
                continue
            if entry.source_etag != etag:
                redo.add(entry.row)
                findings.changed += 1
            elif retries(entry.error_code):
                redo.add(entry.row)
                findings.retried += 1
    newly_pruned = {row for row in there if row in unwanted}
    findings.removed += sum(row in gone for row in there)
    findings.pruned += sum(row in gone for row in newly_pruned)
    if not redo and not newly_pruned:
        return None
    pruned = (set(file.pruned) - redo) | newly_pruned
    return Rewrite(
        file.slice, file.file, file.etag, file.first_row, file.last_row, file.end,
        tuple(sorted(redo)), tuple(sorted(pruned)),
    )  # fmt: skip
