"""The planner: compares the listing with earlier plans and the output, in the order of URIs, and plans the work left.

The planner holds one group of loose files at a time and no list of objects, so that its memory does not grow with the
input; only a small entry for each output file is kept. The planner writes nothing, and its plan depends on its
arguments alone. The planner reads a few columns of those output files whose rows differ from the listing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.inputs.config import InputConfig
from pipeline.inputs.formats import FILES_SCHEME
from pipeline.inputs.listing import Found
from pipeline.output.layout import hash16
from pipeline.output.published import OutputRow, PublishedFile
from pipeline.output.slice_chain import by_shard
from pipeline.plan.archives import state_of
from pipeline.plan.file_groups import OpenGroup, new_group, plan_group, without_reading
from pipeline.plan.merge import merge_by_uri
from pipeline.plan.plan_summary import Emptying, PlanSummary
from pipeline.plan.planned_shard import PlannedShard
from pipeline.plan.record_budget import RecordBudget
from pipeline.store.uris import is_inside

# Approximate number of loose files in a group: enough that a read task is worth its overhead, even if slices are small.
_GROUP_FILES = 4096


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Options of a plan.

    Attributes:
        rows_per_file: rows at which a slice ends; the size of a group of loose files is a multiple of this number.
        prune: True takes out the rows of sources that are gone.
        retry_codes: error codes whose records are tried again; None tries no record again, an empty set tries all
            failed records again.
        since_s: time in Unix seconds; objects that were last modified before this time are left out, unless an earlier
            plan or the output has records of the object.
        max_images: number of records after which no further shard is read; the rest is postponed to the next run.
    """

    rows_per_file: int
    prune: bool = False
    retry_codes: frozenset[str] | None = None
    since_s: float | None = None
    max_images: int | None = None

    def retries(self, code: str | None) -> bool:
        """Returns True for the error code of a failed record that is tried again."""
        return code is not None and self.retry_codes is not None and (not self.retry_codes or code in self.retry_codes)


class Planner:
    """Makes one plan.

    Args:
        listed: objects of the inputs in the order of their URIs, each once.
        published: files of the output.
        earlier: for each earlier plan, oldest first, an iterator over the groups that the plan made, in its order.
        config: settings of the inputs.
        count_records: function of an object and a largest number, which returns the number of records in the object, or
            the largest number if the object has more records; only called if `--limit` or `max_images` is set.
        read_rows: function that returns the rows of an output file; only called for files whose rows differ from the
            listing or are tried again.

    Attributes:
        summary: counts of the plan; complete when the last shard has been taken.
    """

    def __init__(
        self,
        listed: Iterable[Found],
        published: Iterable[PublishedFile],
        earlier: Sequence[Iterable[PlannedShard]],
        config: InputConfig,
        options: PlanOptions,
        count_records: Callable[[Found, int], int],
        read_rows: Callable[[PublishedFile], Sequence[OutputRow]],
    ) -> None:
        self.summary = PlanSummary()
        self._listed = listed
        self._files = by_shard(published)
        self._earlier = earlier
        self._roots = config.uris
        self._options = options
        self._read_rows = read_rows
        self._count_records = count_records
        self._budget = RecordBudget(config.limit, options.max_images)
        self._begun: set[str] = set()
        self._seen: set[str] = set()
        self._group_size = options.rows_per_file * max(1, _GROUP_FILES // options.rows_per_file)

    def deduct_planned(self, planned: Iterable[PlannedShard]) -> None:
        """Subtracts the records of all earlier plans from `--limit`; under a limit, must be called before `shards`."""
        self._budget.deduct(planned)

    def note_begun(self, codes: Iterable[str]) -> None:
        """Notes the `hash16` of objects in earlier plans; if `since_s` is set, must be called before `shards`."""
        self._begun.update(codes)

    def shards(self) -> Iterator[PlannedShard]:
        """Yields the shards that this run has to read, each when the listing is past all URIs of the shard."""
        fresh: list[Found] = []
        for found, members in merge_by_uri(self._listed, self._earlier):
            if found is not None and not found.is_loose:
                yield from self._plan_object(found)
            elif found is not None and not members and self._takes_file(found):
                fresh.append(found)
                if len(fresh) == self._group_size:
                    yield self._new_group(fresh)
                    fresh = []
            for index, (group, row) in enumerate(members):
                # A file that two plans put into groups belongs to the older group.
                group.see(row, found if found is not None and found.is_loose else None, in_older_group=index > 0)
                if group.is_seen:
                    yield from self._plan_group(group)
        if fresh:
            yield self._new_group(fresh)
        self._note_removed_objects()

    def _postpone(self, planned: PlannedShard) -> None:
        if planned.num_todo is None:
            self.summary.postponed_shards += 1
        else:
            self.summary.postponed_images += planned.num_todo

    def _is_older(self, found: Found) -> bool:
        return self._options.since_s is not None and found.info.modified_s < self._options.since_s

    def _takes_file(self, found: Found) -> bool:
        """Returns True if this run reads a loose file that no earlier plan knows; counts the file."""
        if self._is_older(found):
            self.summary.older_objects += 1
            return False
        if not self._budget.take_file():
            return False
        if self._budget.is_spent:
            self.summary.postponed_images += 1
            return False
        self._budget.spend(1)
        return True

    def _new_group(self, found: Sequence[Found]) -> PlannedShard:
        self.summary.new_shards += 1
        return new_group(found)

    def _plan_group(self, group: OpenGroup) -> Iterator[PlannedShard]:
        files = self._files.get(group.shard.hash16, [])
        self._seen.add(group.shard.hash16)
        options = self._options
        planned, findings = plan_group(group, files, self._roots, options.prune, options.retries, self._read_rows)
        summary = self.summary
        summary.emptied += [Emptying(file, None) for file in findings.extra]
        summary.removed_records += findings.removed
        if planned is None:
            summary.complete_shards += findings.is_ours
            return
        if self._budget.is_spent and planned.num_todo:
            self._postpone(planned)
            if (pruning := without_reading(planned, files)) is not None:
                summary.pruned_records += findings.pruned
                yield pruning
            return
        # Records that are tried again do not count: they must not keep new images waiting in every run.
        self._budget.spend(max(0, (planned.num_todo or 0) - findings.retried))
        summary.retried_records += findings.retried
        summary.pruned_records += findings.pruned
        if planned.action == "continue":
            summary.continued_shards += 1
        summary.changed_shards += findings.changed > 0
        yield planned

    def _plan_object(self, found: Found) -> Iterator[PlannedShard]:
        """Yields an object if some of its rows are not published or not current."""
        info, summary = found.info, self.summary
        code = hash16(info.uri)
        self._seen.add(code)
        files = self._files.get(code, [])
        if self._is_older(found) and not files and code not in self._begun:
            summary.older_objects += 1
            return
        state = state_of(info.etag, files, self._options.retries, self._read_rows)
        at_most = self._budget.at_most(code)
        if state.action is None or at_most == 0:
            summary.complete_shards += state.action is None
            summary.emptied += [Emptying(file, info.etag) for file in state.emptied]
            return
        num_records = None if at_most is None else self._count_records(found, at_most)
        if num_records is not None:
            self._budget.take(code, num_records)
        planned = state.planned(found, code, num_records)
        if self._budget.is_spent and planned.num_todo != 0:
            self._postpone(planned)
            # An object that changed keeps its old rows until it is read.
            summary.emptied += [Emptying(file, info.etag) for file in state.emptied_anyway]
            return
        self._budget.spend(max(0, self._num_todo(found, planned) - state.retried))
        summary.emptied += [Emptying(file, info.etag) for file in state.emptied]
        summary.retried_records += state.retried
        summary.changed_shards += state.action == "replace"
        summary.continued_shards += state.action == "continue"
        summary.new_shards += state.action == "new"
        yield planned

    def _num_todo(self, found: Found, planned: PlannedShard) -> int:
        """Returns the number of records to read in an object; counts no further than this run may still read."""
        images_left = self._budget.images_left
        if planned.num_todo is not None or images_left is None:
            return planned.num_todo or 0
        done = sum(slice.last_row - slice.first_row + 1 for slice in planned.done)
        redo = sum(len(rewrite.redo) for rewrite in planned.rewrites)
        return max(0, self._count_records(found, done + images_left) - done) + redo

    def _note_removed_objects(self) -> None:
        """Counts the rows of objects that are gone from the inputs; if `prune` is set, plans to empty their files."""
        for code, files in self._files.items():
            uri = files[0].shard
            if code in self._seen or uri.startswith(FILES_SCHEME) or not any(is_inside(uri, r) for r in self._roots):
                continue
            there = [file for file in files if not file.emptied]
            records = sum(file.rows for file in there)
            self.summary.removed_records += records
            if self._options.prune:
                self.summary.pruned_records += records
                # Emptied files that await a version of the object do not await it any longer.
                waiting = [file for file in files if file.emptied and file.source_etag is not None]
                self.summary.emptied += [Emptying(file, None) for file in [*there, *waiting]]
