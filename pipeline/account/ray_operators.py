"""Ray Data's own figures of its operators: what it ran, and where it held tasks or their output back."""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

logger = logging.getLogger(__name__)

# Ours: Ray's name in `extra_metrics`.
_FIGURES = {
    "tasks": "num_tasks_finished",
    "failed_tasks": "num_tasks_failed",
    "scheduling_s": "task_scheduling_time_s",
    "held_back_s": "task_submission_backpressure_time",
    "output_held_back_s": "task_output_backpressure_time_s",
}
# Our name of the step in Ray's name of an operator, as `MapBatches(CarefulInferActor)`.
_STEPS = (("read", r"read\)"), ("decode", r"decode\)"), ("infer", r"InferActor\)"), ("sink", r"Write|Sink"))


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One operator, over all passes.

    Attributes:
        tasks: that ended well; of actors, calls.
        failed_tasks: that failed for good.
        scheduling_s: from when tasks were submitted to when they ran, summed over tasks.
        held_back_s: for which no task was submitted though there was input, since there was no room: backpressure.
        output_held_back_s: for which tasks had output that nobody fetched.
    """

    name: str
    tasks: int = 0
    failed_tasks: int = 0
    scheduling_s: float = 0.0
    held_back_s: float = 0.0
    output_held_back_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Operators:
    """What Ray Data says of some passes.

    Attributes:
        operators: in the order of the flow.
        spilled_bytes, restored_bytes: that Ray's object stores wrote to disks for want of room, and read back.
    """

    operators: Sequence[Operator] = field(default_factory=tuple)
    spilled_bytes: int = 0
    restored_bytes: int = 0

    def __add__(self, other: "Operators") -> "Operators":
        sums = {operator.name: operator for operator in self.operators}
        for operator in other.operators:
            before = sums.get(operator.name)
            sums[operator.name] = operator if before is None else _sum(before, operator)
        # Ray counts spilling from the start of the cluster on.
        return Operators(
            operators=tuple(sums.values()),
            spilled_bytes=max(self.spilled_bytes, other.spilled_bytes),
            restored_bytes=max(self.restored_bytes, other.restored_bytes),
        )


def operators_of(dataset: Any) -> Operators:
    """What Ray Data says of a `ray.data.Dataset` that ran; empty where it says nothing."""
    try:
        summary = dataset.get_stats_summary()
        return Operators(
            operators=tuple(_operators(summary)),
            spilled_bytes=int(summary.global_bytes_spilled),
            restored_bytes=int(summary.global_bytes_restored),
        )
    except Exception as error:  # a developers' interface: whatever becomes of it, a run must not end with it
        logger.warning("operators.unknown error=%s: %s", type(error).__name__, error)
        return Operators()


def _operators(summary: Any) -> Iterator[Operator]:
    for parent in summary.parents:
        yield from _operators(parent)
    name = _step_name(summary.base_name or "")
    if name and summary.extra_metrics:
        yield Operator(name=name, **{ours: summary.extra_metrics.get(theirs) or 0 for ours, theirs in _FIGURES.items()})


def _step_name(name: str) -> str | None:
    return next((step for step, pattern in _STEPS if re.search(pattern, name)), None)


def _sum(first: Operator, second: Operator) -> Operator:
    return Operator(name=first.name, **{name: getattr(first, name) + getattr(second, name) for name in _FIGURES})
