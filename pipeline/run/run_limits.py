"""The bounds `--max-images` and `--max-hours`: when they end a run, and the sentence that says what is left."""

import time
from collections.abc import Callable, Mapping

from pipeline.output.published import PublishedFile
from pipeline.run.remaining import missing
from pipeline.run.run import Run
from pipeline.run.stopper import Ending


def hours_over(run: Run) -> Callable[[], Ending | None]:
    """Returns a function that returns the run's ending once `--max-hours` have passed, and None before."""
    hours = run.config.bounds.max_hours

    def check() -> Ending | None:
        if hours is None or time.time() - run.started_at < hours * 3600:
            return None
        return Ending("stopped", f"bounded by --max-hours {hours:g}", is_bound=True)

    return check


def bound_by_images(run: Run) -> str | None:
    """Returns a sentence that says what `--max-images` left to later runs; None if nothing is left."""
    summary = run.plan.summary
    if not summary.postponed_images and not summary.postponed_shards:
        return None
    left = describe_left(summary.postponed_images, summary.postponed_shards)
    return f"bounded by --max-images {run.config.bounds.max_images}: {left}"


def bound_by_hours(run: Run, published: Mapping[str, PublishedFile], ending: Ending) -> str:
    """Returns a sentence that says what a run left to later runs when `--max-hours` ended it.

    The sentence counts the missing work of the plan and the work that `--max-images` kept out of the plan.
    """
    images, shards = run.plan.summary.postponed_images, run.plan.summary.postponed_shards
    for shard in missing(run.plan, published):
        images += shard.num_todo or 0
        shards += shard.num_todo is None
    return f"{ending.reason}: {describe_left(images, shards)}"


def describe_left(images: int, shards: int) -> str:
    """Returns the work that is left in words, such as "2 shards and 10 images are left".

    Args:
        images: number of images that are left in shards whose images are counted.
        shards: number of other shards that are left, whose images are not counted.
    """
    counts = [(shards, "shard"), (images, "image")]
    parts = [f"{count:,} {noun}{'' if count == 1 else 's'}" for count, noun in counts if count]
    if not parts:
        return "nothing is left"
    return f"{' and '.join(parts)} {'is' if images + shards == 1 else 'are'} left"
