"""Compares the sizes of a sweep on the same images, and chooses the cheapest one that is as good as the best."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.network.config import PVTv2Config
from model.network.cost import count_macs
from pipeline.evaluation.calibration import Calibration, calibration_error
from pipeline.evaluation.intervals import difference_interval, mcnemar_p, wilson_interval
from pipeline.evaluation.outcomes import Outcomes

PRECISIONS = (0.9, 0.95, 0.99)
SIGNIFICANT = 0.05
_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The measurements of one size.

    Attributes:
        name: Name of the size.
        outcomes: Answers to the images that all sizes have answers for, sorted by the id.
        lists_five: True if the rows list at least five classes.
        calibration: Fitted temperature; None if there is none.
        seconds: Seconds of one actor's network for an image; None if they are not known.
    """

    name: str
    outcomes: Outcomes
    lists_five: bool
    calibration: Calibration | None
    seconds: float | None


def on_common_images(found: Sequence[Outcomes]) -> list[Outcomes]:
    """Returns the outcomes reduced to the images that all of them have."""
    common = found[0].image_id
    for each in found[1:]:
        common = np.intersect1d(common, each.image_id, assume_unique=True)
    return [each.of(common) for each in found]


def compare(sizes: Sequence[Measured], network: PVTv2Config) -> dict[str, Any]:
    """Returns the comparison as a value for JSON: a row for each size, the best size, and the chosen one.

    The best size has the highest top-1 accuracy, and among equals the fewest MACs. The chosen size is the one with the
    fewest MACs among the sizes that are not significantly worse than the best one (McNemar, two-sided, 0.05).
    """
    rows = [_row(size, network) for size in sizes]
    if not len(sizes[0].outcomes.image_id):
        return {"images": 0, "best": None, "chosen": None, "sizes": rows}
    best = max(range(len(rows)), key=lambda index: (rows[index]["top1"], -rows[index]["gmac"]))
    for row, size in zip(rows, sizes, strict=True):
        row |= _against(size.outcomes.is_right, sizes[best].outcomes.is_right)
    as_good = [row for row in rows if row["p_against_best"] >= SIGNIFICANT or row["top1"] == rows[best]["top1"]]
    chosen = min(as_good, key=lambda row: (row["gmac"], -row["top1"]))
    return {
        "images": len(sizes[0].outcomes.image_id),
        "best": rows[best]["size"],
        "chosen": chosen["size"],
        "sizes": rows,
    }


def _row(size: Measured, network: PVTv2Config) -> dict[str, Any]:
    found = size.outcomes
    num, right = len(found.image_id), int(found.is_right.sum())
    interval = wilson_interval(right, num)
    figures = None if size.calibration is None else asdict(size.calibration.figures)
    return {
        "size": size.name,
        "images": num,
        "top1": _share(right, num),
        "top1_interval": None if interval is None else [round(bound, _DIGITS) for bound in interval],
        "top5": _share(int(found.is_listed.sum()), num) if size.lists_five else None,
        "balanced": _balanced(found),
        "calibration_error": calibration_error(found.score, found.is_right) if num else None,
        "temperature": None if size.calibration is None else round(size.calibration.temperature, 4),
        "on_held_out_half": figures,
        "accepted_at_precision": {
            f"{precision:g}": _share(_most_accepted(found.score, found.is_right, precision), num)
            for precision in PRECISIONS
        },
        "gmac": round(_mean_macs(found, network) / 1e9, 4) if num else None,
        "images_per_s": round(1 / size.seconds, 2) if size.seconds else None,
    }


def _against(is_right: npt.NDArray[np.bool_], is_best_right: npt.NDArray[np.bool_]) -> dict[str, Any]:
    only_here, only_best = int((is_right & ~is_best_right).sum()), int((~is_right & is_best_right).sum())
    low, high = difference_interval(only_here, only_best, len(is_right))
    return {
        "difference_to_best": round((only_here - only_best) / len(is_right), _DIGITS),
        "difference_interval": [round(low, _DIGITS), round(high, _DIGITS)],
        "p_against_best": round(mcnemar_p(only_here, only_best), _DIGITS),
    }


def _balanced(found: Outcomes) -> float | None:
    """Returns the mean recall of the classes that occur as true classes."""
    if not len(found.true_id):
        return None
    classes, of = np.unique(found.true_id, return_inverse=True)
    recalls = np.bincount(of, found.is_right, len(classes)) / np.bincount(of, minlength=len(classes))
    return round(float(recalls.mean()), _DIGITS)


def _most_accepted(score_N: npt.NDArray[np.float32], is_right_N: npt.NDArray[np.bool_], precision: float) -> int:
    """Returns the most answers that one least score accepts so that at least this share of them is right."""
    order = np.argsort(-score_N, kind="stable")
    sorted_N, right_N = score_N[order], np.cumsum(is_right_N[order])
    is_end = np.append(sorted_N[1:] < sorted_N[:-1], True) if len(score_N) else np.array([], bool)
    counts = np.arange(1, len(score_N) + 1)
    good = np.flatnonzero(is_end & (right_N >= precision * counts - 1e-9))
    return int(counts[good[-1]]) if len(good) else 0


def _mean_macs(found: Outcomes, network: PVTv2Config) -> float:
    sizes, counts = np.unique(found.net_size, axis=0, return_counts=True)
    macs = [count_macs(network, int(height), int(width)) for height, width in sizes]
    return float(np.average(macs, weights=counts))


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, _DIGITS) if whole else None


def sizes_file(
    comparison: Mapping[str, Any], policies: Mapping[str, Mapping[str, Any]], weights: str
) -> dict[str, Any]:
    """Returns the content of `sizes.json`: the comparison, and the numbers of each size for `--size-from`.

    Args:
        policies: Size policy of each size by its name, as in the identity of an output.
        weights: SHA-256 of the weights.
    """
    return {**comparison, "weights_sha256": weights, "policies": dict(policies)}
