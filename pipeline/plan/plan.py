"""The plan of one run: its shards in a file on disk, and the numbers of shards of each kind."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pipeline.plan.plan_file import PlanFile
from pipeline.plan.plan_summary import PlanSummary
from pipeline.plan.planned_shard import PlannedShard


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The complete plan of one run.

    Attributes:
        shards: planned shards, in the order in which they are read.
        summary: changes that the planner found since the previous run.
        by_format: number of planned shards of each format.
        by_action: number of planned shards for each action, such as `new` or `continue`.
        num_images: number of images to read in the shards whose images are counted.
        num_uncounted: number of shards whose images are not counted, such as tars.
        num_bytes: number of bytes of all planned shards.
        num_ignored: number of listed names that are not selected, see `Survey.ignored`.
        passed_over: number of these names by ending, see `Survey.passed_over`.
        only_shards: inputs of which every selected object is a shard, see `Survey.only_shards`.
    """

    shards: PlanFile
    summary: PlanSummary
    by_format: Counter[str]
    by_action: Counter[str]
    num_images: int
    num_uncounted: int
    num_bytes: int
    num_ignored: int = 0
    passed_over: Mapping[str, int] = field(default_factory=dict)
    only_shards: tuple[str, ...] = ()

    @property
    def num_shards(self) -> int:
        """Number of planned shards."""
        return self.by_format.total()

    @property
    def is_empty(self) -> bool:
        """True if there is nothing to read and nothing to empty."""
        return not self.num_shards and not self.summary.emptied


def make_plan(shards: Iterable[PlannedShard], summary: PlanSummary) -> Plan:
    """Writes the shards to a file on disk, counts the shards, and returns the plan.

    Args:
        summary: the planner's summary, which is complete when the last shard has been taken.
    """
    by_format, by_action, counts = Counter[str](), Counter[str](), Counter[str]()

    def counted() -> Iterator[PlannedShard]:
        for shard in shards:
            by_format[shard.format] += 1
            by_action[shard.action] += 1
            counts["bytes"] += shard.size
            counts["images"] += shard.num_todo or 0
            counts["uncounted"] += shard.num_todo is None
            yield shard

    return Plan(
        shards=PlanFile(counted()),
        summary=summary,
        by_format=by_format,
        by_action=by_action,
        num_images=counts["images"],
        num_uncounted=counts["uncounted"],
        num_bytes=counts["bytes"],
    )
