"""The state of one run: its plan, and the facts that its report is made of."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pipeline.account.breakdown import Breakdown
from pipeline.account.ray_operators import Operators
from pipeline.account.timeline import Timeline
from pipeline.account.totals import Totals
from pipeline.cluster.processors import Processors
from pipeline.config.checkpoint import Checkpoint
from pipeline.config.job_config import JobConfig
from pipeline.lease.lease import Lease
from pipeline.output.published import PublishedFile
from pipeline.plan.plan_file import PlanFile
from pipeline.plan.planner import PlanSummary
from pipeline.publish.collector import CollectorState
from pipeline.publish.receipt import Receipt


@dataclass(slots=True)
class Plan:
    """The plan of one run: its rows on disk, and what they come to.

    Attributes:
        num_todo: records to read as far as they are known, and `uncounted` shards that hide theirs.
        shards: how many there are, by format and by action.
        ignored: listed names that were passed over.
    """

    rows: PlanFile
    summary: PlanSummary
    num_todo: int = 0
    uncounted: int = 0
    bytes: int = 0
    by_format: Counter[str] = field(default_factory=Counter)
    by_action: Counter[str] = field(default_factory=Counter)
    ignored: int = 0

    @property
    def is_empty(self) -> bool:
        """True if there is nothing to read and nothing to empty."""
        return not self.by_format and not self.summary.emptied


@dataclass(slots=True)
class Run:
    """What one run has found out so far: the facts that the report is made of.

    Attributes:
        published: the output's files by name, those of earlier runs included.
        counters: last state of each collector, receipts apart.
        planned_macs: what the planned images will take of the network, by a sample; None as long as there is none.
        bound: of a run that ended since it was asked to do no more, what bounded it and what is left; else None.
        did: what this run's receipts come to.
    """

    config: JobConfig
    run_id: str
    started_at: float
    checkpoint: Checkpoint
    identity: dict[str, Any]
    plan: Plan
    published: dict[str, PublishedFile]
    lease: Lease
    receipts: list[Receipt] = field(default_factory=list)
    counters: list[CollectorState] = field(default_factory=list)
    processors: Processors | None = None
    passes: int = 0
    first_row_at: float | None = None
    listing_s: float = 0.0
    planned_macs: float | None = None
    bound: str | None = None
    did: Totals = field(default_factory=Totals)
    operators: Operators = field(default_factory=Operators)
    breakdown: Breakdown = field(default_factory=Breakdown)
    timeline: Timeline = field(init=False)

    def __post_init__(self) -> None:
        self.timeline = Timeline(self.started_at)

    def take(self, receipts: Iterable[Receipt]) -> None:
        """Takes the receipts of slices that this run published; what they tell beyond the footers is added up."""
        for receipt in receipts:
            self.did += receipt.footer.own or receipt.footer.totals
            self.did += Totals(seconds={"put": receipt.put_s}, counts={"bytes_out": receipt.bytes_out})
            self.breakdown += receipt.breakdown
            for span, images, pixels, macs in receipt.work:
                self.timeline.add(span, images, pixels, macs)
            self.receipts.append(receipt.bare())

    def take_operators(self, operators: Operators) -> None:
        """Takes what Ray says of its operators in a part of the run."""
        self.operators += operators
