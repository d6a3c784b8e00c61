"""Drift: the difference between the distributions of labels, or of scores, over earlier images and over new images.

The measure is the population stability index (PSI), sum((p - q) * ln(p / q)) over classes, where p is the share of a
class among new images and q the share among earlier images. The PSI is the symmetrised divergence of Kullback and
Leibler (1951). Credit scoring calls a population "stable" below 0.1 and "shifted" above 0.25 (Siddiqi, Credit Risk
Scorecards, 2006).

Even if nothing changed, the PSI of n new and m earlier images is not 0. The PSI is then distributed as (1/n + 1/m)
times chi-squared with K - 1 degrees of freedom for K classes (Yurdakul, Statistical Properties of Population Stability
Index, 2018). So a PSI that chance alone exceeds once in a thousand runs, or more often, does not count as drift.

Difference from the usual PSI: a half is added to each count (Jeffreys), so that the sum stays finite if a
class has images on only one side.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

MAX_DRIFT = 0.25
SCORE_BINS = 10
_CHANCE = 0.001
_PRIOR = 0.5
_MOST_MOVED = 3
_ENOUGH_COMPARED = 0.9


@dataclass(frozen=True, kw_only=True)
class Drift:
    """The drift of one distribution.

    Attributes:
        psi: The population stability index; 0 or more.
        noise: The index that chance alone exceeds once in a thousand runs of as many images.
        limit: The index above which the difference is drift: the larger of the threshold and `noise`.
        moved: The classes that contribute most, as (name, share among earlier images, share among new images).
    """

    psi: float
    noise: float
    limit: float
    moved: tuple[tuple[str, float, float], ...]

    @property
    def is_over(self) -> bool:
        """True if the index is over the limit."""
        return self.psi > self.limit


@dataclass(frozen=True, kw_only=True)
class DriftWithinSizes:
    """The drift between images of similar size.

    Attributes:
        drift: The drift; None if no new image has earlier images of its size.
        compared: Share of the new images that have earlier images of their size.
    """

    drift: Drift | None
    compared: float

    @property
    def shows_none(self) -> bool:
        """True if nearly all new images were compared, by enough earlier ones to see drift, and there is none."""
        if self.drift is None or self.compared < _ENOUGH_COMPARED:
            return False
        # With few images, chance alone exceeds the threshold, and a drift would not be seen.
        return self.drift.noise < self.drift.limit and not self.drift.is_over


def find_drift_within_sizes(
    earlier: Mapping[int, Mapping[str, int]], new: Mapping[int, Mapping[str, int]], max_drift: float
) -> DriftWithinSizes | None:
    """Returns the drift between images of the same band of sizes; None if there are no earlier or no new images.

    The new images are compared with what earlier images give if each band has the share that it has among the new
    images (direct standardisation). So images of a new camera, which are larger, are not taken for images of other
    classes.

    Args:
        earlier: Number of earlier images by band, then by class.
        new: Number of new images, likewise.
        max_drift: Threshold of the index.
    """
    num_new = sum(sum(counts.values()) for counts in new.values())
    if not num_new or not any(any(counts.values()) for counts in earlier.values()):
        return None
    totals = {band: (sum(earlier.get(band, {}).values()), sum(counts.values())) for band, counts in new.items()}
    common = {band: both for band, both in totals.items() if both[0] and both[1]}
    num_common = sum(of_new for _, of_new in common.values())
    # The variance of a weighted sum of shares is that of a share among so many images.
    effective = (
        1 / sum((of_new / num_common) ** 2 / of_earlier for of_earlier, of_new in common.values()) if common else 0
    )
    expected: dict[str, float] = {}
    seen: dict[str, int] = {}
    for band, (of_earlier, of_new) in common.items():
        for name, count in earlier[band].items():
            share = of_new / num_common * count / of_earlier
            expected[name] = expected.get(name, 0.0) + effective * share
        for name, count in new[band].items():
            seen[name] = seen.get(name, 0) + count
    return DriftWithinSizes(drift=find_drift(expected, seen, max_drift), compared=num_common / num_new)


def find_drift(earlier: Mapping[str, float], new: Mapping[str, int], max_drift: float) -> Drift | None:
    """Returns the drift from the earlier counts to the new counts; None if there are no earlier or no new images.

    Args:
        earlier: Number of earlier images by class.
        new: Number of new images by class.
        max_drift: Threshold of the index.
    """
    num_earlier, num_new = sum(earlier.values()), sum(new.values())
    if not num_earlier or not num_new:
        return None
    names = sorted({*earlier, *new})

    def shares(counts: Mapping[str, float]) -> list[float]:
        total = sum(counts.values()) + _PRIOR * len(names)
        return [(counts.get(name, 0) + _PRIOR) / total for name in names]

    q, p = shares(earlier), shares(new)
    parts = [(now - then) * math.log(now / then) for then, now in zip(q, p, strict=True)]
    noise = (1 / num_earlier + 1 / num_new) * chi_squared(len(names) - 1)
    most = sorted(range(len(names)), key=lambda index: -parts[index])[:_MOST_MOVED]
    return Drift(
        psi=sum(parts),
        noise=noise,
        limit=max(max_drift, noise),
        moved=tuple(
            (names[i], earlier.get(names[i], 0) / num_earlier, new.get(names[i], 0) / num_new) for i in most if parts[i]
        ),
    )


def chi_squared(degrees: int, chance: float = _CHANCE) -> float:
    """Returns the value that a chi-squared variable exceeds with a given chance; 0 without degrees of freedom.

    Source: Wilson and Hilferty 1931; the result is a few percent off for one or two degrees of freedom, less for more.
    """
    if degrees < 1:
        return 0.0
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + NormalDist().inv_cdf(1 - chance) * math.sqrt(spread)) ** 3
