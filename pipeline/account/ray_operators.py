"""Ray Data's own figures of its operators: tasks that ran, and times for which tasks or their output were held back."""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

logger = logging.getLogger(__name__)

# Each field of `Operator`, and the name of the same figure in Ray's `extra_metrics`.
_FIGURES = {
    "tasks": "num_tasks_finished",
    "failed_tasks": "num_tasks_failed",
    "scheduling_s": "task_scheduling_time_s",
    "held_back_s": "task_submission_backpressure_time",
    "output_held_back_s": "task_output_backpressure_time_s",
}
# Name of a step, and the pattern of Ray's name for its operator, such as `MapBatches(CarefulInferActor)`.
_STEPS = (("read", r"read\)"), ("decode", r"decode\)"), ("infer", r"InferActor\)"), ("sink", r"Write|Sink"))


@dataclass(frozen=True, kw_only=True)
class Operator:
    """Ray Data's figures of one operator, which runs one step of the flow, summed over all passes.

    Attributes:
        name: Name of the step that the operator runs.
        tasks: Number of tasks, or of actors' calls, that succeeded.
        failed_tasks: Number of tasks that failed after their last retry.
        scheduling_s: Seconds between submission and start, summed over tasks.
        held_back_s: Seconds for which the operator had input but Ray submitted no task because of backpressure.
        output_held_back_s: Seconds for which tasks had output that Ray did not fetch because of backpressure.
    """

    name: str
    tasks: int = 0
    failed_tasks: int = 0
    scheduling_s: float = 0.0
    held_back_s: float = 0.0
    output_held_back_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Operators:
    """Ray Data's figures of one pass or of several passes.

    Attributes:
        operators: Figures of each operator, in the order of the flow.
        spilled_bytes: Bytes that full object stores of Ray wrote to disks.
        restored_bytes: Bytes that Ray's object stores read back from disks.
    """

    operators: Sequence[Operator] = field(default_factory=tuple)
    spilled_bytes: int = 0
    restored_bytes: int = 0

    def __add__(self, other: "Operators") -> "Operators":
        sums = {operator.name: operator for operator in self.operators}
        for operator in other.operators:
            before = sums.get(operator.name)
            sums[operator.name] = operator if before is None else _sum(before, operator)
        # Ray counts spilled bytes from the start of the cluster, so that the later count includes the earlier one.
        return Operators(
            operators=tuple(sums.values()),
            spilled_bytes=max(self.spilled_bytes, other.spilled_bytes),
            restored_bytes=max(self.restored_bytes, other.restored_bytes),
        )


def operators_of(dataset: Any) -> Operators:
    """Returns Ray Data's figures of a `ray.data.Dataset` that ran; no figures if Ray Data gives none."""
    try:
        summary = dataset.get_stats_summary()
        return Operators(
            operators=tuple(_operators(summary)),
            spilled_bytes=int(summary.global_bytes_spilled),
            restored_bytes=int(summary.global_bytes_restored),
        )
    except Exception as error:  # Ray promises nothing about these figures, and a run must not fail over them
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
