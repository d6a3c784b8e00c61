"""Bounds and tests for shares of right answers: one share, and the difference of two on the same images.

Sources: the interval of Wilson 1927 for one share; the exact bound of Clopper and Pearson 1934; the exact test of
McNemar 1947 for two classifiers on the same images; the interval of Agresti and Min 2005 for the difference of two such
shares.
"""

import math
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95


def binomial_cdf(most: int, num: int, share: float) -> float:
    """Returns the probability of at most `most` successes in `num` independent trials, each of probability `share`."""
    if most < 0:
        return 0.0
    if most >= num or share <= 0:
        return 1.0
    if share >= 1:
        return 0.0
    counts = np.arange(most + 1)
    steps = np.log((num - counts[1:] + 1) / counts[1:]) + math.log(share) - math.log1p(-share)
    logs = num * math.log1p(-share) + np.concatenate([[0.0], np.cumsum(steps)])
    top = logs.max()
    return min(1.0, float(np.exp(logs - top).sum()) * math.exp(top))


def lower_bound(right: int, num: int, confidence: float = CONFIDENCE) -> float:
    """Returns the exact one-sided lower bound of a share of which `right` of `num` images are known; 0 without images.

    With the given confidence the true share is at least the bound.
    """
    if not right:
        return 0.0
    low, high = 0.0, right / num
    for _ in range(60):
        middle = (low + high) / 2
        # The chance of as many right answers as were seen, or more, is the chance of as few wrong ones.
        is_below = binomial_cdf(num - right, num, 1 - middle) <= 1 - confidence
        low, high = (middle, high) if is_below else (low, middle)
    return low


def wilson_interval(right: int, num: int, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Returns the two-sided interval of a share of which `right` of `num` images are known; None without images."""
    if not num:
        return None
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, scale = right / num, 1 + z**2 / num
    middle = (share + z**2 / (2 * num)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / num + z**2 / (4 * num**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Returns the two-sided p value of the exact test that two classifiers are right equally often.

    Args:
        only_first, only_second: Numbers of images for which only the first, or only the second, is right.
    """
    differing = only_first + only_second
    return min(1.0, 2 * binomial_cdf(min(only_first, only_second), differing, 0.5)) if differing else 1.0


def difference_interval(
    only_first: int, only_second: int, num: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Returns the interval of (share of the first - share of the second), for answers to the same `num` images.

    Args:
        only_first, only_second: As for `mcnemar_p`.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    first, second, total = only_first + 0.5, only_second + 0.5, num + 2
    middle = (first - second) / total
    half = z * math.sqrt(max(0.0, first + second - (first - second) ** 2 / total)) / total
    return max(-1.0, middle - half), min(1.0, middle + half)
