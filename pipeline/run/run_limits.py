"""How a run that was asked to do a part of the work ends: when, and what it says is left."""

import time
from collections.abc import Callable, Mapping

from pipeline.output.published import PublishedFile
from pipeline.run.remaining import missing
from pipeline.run.run import Run
from pipeline.run.stopper import Ending


def hours_over(run: Run) -> Callable[[], Ending | None]:
    """Asked again and again, gives the run's end when `--max-hours` have passed since it began."""
    hours = run.config.bounds.max_hours

    def check() -> Ending | None:
        if hours is None or time.time() - run.started_at < hours * 3600:
            return None
        return Ending("stopped", f"bounded by --max-hours {hours:g}", is_bound=True)

    return check


def bound_by_images(run: Run) -> str | None:
    """What a run that did all that it had planned left by `--max-images`, as a sentence; None if nothing."""
    summary = run.plan.summary
    if not summary.postponed_images and not summary.postponed_shards:
        return None
    left = describe_left(summary.postponed_images, summary.postponed_shards)
    return f"bounded by --max-images {run.config.bounds.max_images}: {left}"


def bound_by_hours(run: Run, published: Mapping[str, PublishedFile], ending: Ending) -> str:
    """What a run that ended by `--max-hours` left of its plan, and of all that it had not planned, as a sentence."""
    images, shards = run.plan.summary.postponed_images, run.plan.summary.postponed_shards
    for shard in missing(run.plan, published):
        images += shard.num_todo or 0
        shards += shard.num_todo is None
    return f"{ending.reason}: {describe_left(images, shards)}"


def describe_left(images: int, shards: int) -> str:
    """So many images, and shards that hide how many theirs are, in words."""
    counts = [(shards, "shard"), (images, "image")]
    parts = [f"{count:,} {noun}{'' if count == 1 else 's'}" for count, noun in counts if count]
    if not parts:
        return "nothing is left"
    return f"{' and '.join(parts)} {'is' if images + shards == 1 else 'are'} left"
