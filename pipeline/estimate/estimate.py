"""Estimates a planned run: its work from a sample of image headers, its time from the pace of a similar run."""

import logging
from collections.abc import Callable
from typing import Any

from pipeline.account.progress import Progress
from pipeline.estimate.calibrate import calibrate
from pipeline.estimate.pace import Pace, last_pace
from pipeline.plan.sampling import sample_shards
from pipeline.read.header_sample import planned_work
from pipeline.run.run import Run

logger = logging.getLogger(__name__)

NUM_SHARDS = 24
NUM_IMAGES = 600  # from all sampled shards together


def estimate_run(run: Run, on_progress: Callable[[Progress], None]) -> dict[str, Any] | None:
    """Returns the estimate for the last line of a dry run; None if there is nothing to read.

    `images`, `mpix` (megapixels) and `gmac` (giga-MACs) are estimates for the whole plan. `seconds` and `cost` follow
    from the pace of an earlier run, which `like_run` names. Without an earlier run, a calibration gives both values if
    `--calibrate` asks for a calibration; otherwise both values are None.

    Args:
        on_progress: function that is called with the progress about once a second during a calibration.
    """
    config = run.config
    work = planned_work(
        sample_shards(run.plan.shards, NUM_SHARDS),
        NUM_IMAGES,
        plan_bytes=run.plan.num_bytes,
        config=run.config.input,
        network=run.checkpoint.network,
        sizes=run.config.task.size_policies(run.config.sizes),
    )
    if work is None:
        return None
    gmac = work.macs / 1e9
    pace, is_calibrated = last_pace(run), False
    if config.calibrate and pace is not None:
        logger.info("calibration.not_needed like_run=%s", pace.run_id)
    elif config.calibrate and not work.images:
        logger.warning("calibration.no_pace reason=%r", "no image of the sample reaches the network")
    elif config.calibrate:
        pace = calibrate(run, work.pixels / work.images, gmac / work.images, on_progress)
        is_calibrated = pace is not None
    return {
        "images_sampled": work.images_sampled,
        "images": round(work.images),
        "mpix": round(work.pixels / 1e6, 3),
        "gmac": round(gmac, 3),
        **_time_and_cost(gmac, pace, config.compute.price_per_hour),
        "like_run": None if pace is None or is_calibrated else pace.run_id,
        "calibrated": is_calibrated,
        "calibration_seconds": round(pace.steady_s, 1) if pace is not None and is_calibrated else None,
    }


def _time_and_cost(gmac: float, pace: Pace | None, price_per_hour: float | None) -> dict[str, float | None]:
    """Returns the seconds that `gmac` giga-MACs take at a pace, and the cost of the actors in that time."""
    if pace is None:
        return {"seconds": None, "cost": None}
    seconds = pace.seconds(gmac)
    hours = seconds / 3600 * pace.num_actors
    return {
        "seconds": round(seconds, 1),
        "cost": None if price_per_hour is None else round(price_per_hour * hours, 4),
    }
