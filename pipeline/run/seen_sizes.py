"""Compares the sizes of images with the size that the network was trained at, before the work begins."""

import logging
from dataclasses import replace
from statistics import median
from typing import Any

from pipeline.chunks.task import Classify
from pipeline.config.job_config import JobConfig
from pipeline.plan.sampling import sample_shards
from pipeline.read.header_sample import shorter_sides
from pipeline.run.run import Run

logger = logging.getLogger(__name__)

PUBLISHED_PX = 224
"""Side in pixels of the crops that the published PVTv2 were trained at (Wang et al. 2022, section 4.1)."""

# Accuracies of published networks are known up to this factor from the size in training.
_FAR = 1.5
_SAMPLED_SHARDS = 4
_SAMPLED_IMAGES = 32
# The comparison waits no longer than this for a store that is busy.
_DEADLINE_S, _TIMEOUT_S = 2.0, 10.0


def compare_sizes(run: Run) -> dict[str, Any] | None:
    """Returns what is known of the sizes of images and of the network, and logs a warning if these are far apart.

    The result has the least and largest `trained_px`, `trained_px_from` (`checkpoint`, or `published` for
    weights that say nothing), `images_sampled`, the least, median and largest `shorter_side_px` of these images, the
    share of them that is `far` from the sizes in training by more than a factor of 1.5, and `advice`, a sentence or
    None. Only jobs that classify get advice: features may be wanted at any size. The result is None if the user chose a
    size or gave a calibration of this size, if there is nothing to read, or if no header could be read.
    """
    config = run.config
    is_chosen = config.size is not None or config.size_from is not None or _is_calibrated(config)
    if is_chosen or config.sizes.preprocess != "native" or not run.plan.num_shards:
        return None
    source = replace(config.input, store=config.input.store.bounded(_DEADLINE_S, _TIMEOUT_S))
    sides = shorter_sides(sample_shards(run.plan.shards, _SAMPLED_SHARDS), _SAMPLED_IMAGES, source)
    if not sides:
        return None
    advice, middle = run.checkpoint.info.sizes, median(sides)
    trained = advice.trained_px or PUBLISHED_PX
    low, high = advice.trained_range_px or (trained, trained)
    is_named = advice.trained_px is not None or advice.trained_range_px is not None

    def is_far(side: float) -> bool:
        return not low / _FAR <= side <= high * _FAR

    far = sum(map(is_far, sides)) / len(sides)
    found: dict[str, Any] = {
        "trained_px": {"least": low, "largest": high},
        "trained_px_from": "checkpoint" if is_named else "published",
        "images_sampled": len(sides),
        "shorter_side_px": {"least": min(sides), "median": middle, "largest": max(sides)},
        "far": round(far, 3),
        "advice": None,
    }
    shown = {name: found[name] for name in ("shorter_side_px", "trained_px")}
    logger.info("sizes.sampled images=%d %s", len(sides), shown)
    if isinstance(config.task, Classify) and is_far(middle):
        whose = "these weights were" if is_named else "published PVTv2 were (these weights do not say)"
        at = f"{low} px" if low == high else f"{low} to {high} px"
        flag = f"square:{low}" if low == high else f"shorter:{high if middle > high else low}"
        found["advice"] = (
            f"the network sees images at their own size, whose shorter side is {middle:g} px in the median of "
            f"{len(sides)} samples; {whose} trained at {at}, and {far:.0%} of the samples are more than {_FAR} "
            f"times larger or smaller: labels may be better with --size {flag}, in another --output; see "
            "docs/use/size.md. --size native keeps this size without a warning"
        )
        logger.warning("sizes.far %s", found["advice"])
    return found


def warn_if_fitted_for_another(config: JobConfig, weights_sha256: str) -> None:
    """Logs a warning if the scores get a temperature that was fitted for other weights or at another size."""
    scaling = config.task.scaling if isinstance(config.task, Classify) else None
    if scaling is None:
        return
    if scaling.weights_sha256 != weights_sha256:
        logger.warning(
            "calibration.other_weights fitted_for=%s these=%s: scores may not say how often labels are right; evaluate "
            "these weights", scaling.weights_sha256[:12], weights_sha256[:12],
        )  # fmt: skip
    if not _is_calibrated(config):
        logger.warning(
            "calibration.other_size fitted_at=%s: scores may not say how often labels are right at this size; give "
            "--size %s, or the calibration of this size", scaling.size, scaling.size,
        )  # fmt: skip


def _is_calibrated(config: JobConfig) -> bool:
    """Returns whether the scores get a temperature that was fitted at the size of the job."""
    scaling = config.task.scaling if isinstance(config.task, Classify) else None
    return scaling is not None and scaling.policy == config.sizes
