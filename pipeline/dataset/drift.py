"""Drift: how far the images of one run differ from those before, in what the network says of them.

The figure is the population stability index, sum((p - q) * ln(p / q)) over classes, of the shares p among new images
and q among earlier ones; it is the symmetrised divergence of Kullback and Leibler (1951). Credit scoring reads it as
"stable" below 0.1 and "shifted" above 0.25 (Siddiqi, Credit Risk Scorecards, 2006).

Of n new images and m earlier ones it is not 0 even if nothing changed: it is then distributed as (1/n + 1/m) times
chi-squared with K - 1 degrees of freedom for K classes (Yurdakul, Statistical Properties of Population Stability Index,
2018). So nothing counts as drift that chance gives once in a thousand runs.

Difference from the usual: counts are raised by a half (Jeffreys), so that a class which only one side has leaves the
figure finite.
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


@dataclass(frozen=True, kw_only=True)
class Drift:
    """One distribution beside that of earlier images.

    Attributes:
        psi: the population stability index, 0 and more.
        noise: what chance alone exceeds once in a thousand runs of as many images.
        limit: the figure from which on it is drift: the threshold, or `noise` where that is more.
        moved: the classes that contribute most: name, share among earlier images, share among new ones.
    """

    psi: float
    noise: float
    limit: float
    moved: tuple[tuple[str, float, float], ...]

    @property
    def is_over(self) -> bool:
        """True if it is drift."""
        return self.psi > self.limit


def find_drift(earlier: Mapping[str, int], new: Mapping[str, int], max_drift: float) -> Drift | None:
    """How far the new counts of each class differ from the earlier ones; None if one of the two has none.

    Args:
        max_drift: the threshold, as an index.
    """
    num_earlier, num_new = sum(earlier.values()), sum(new.values())
    if not num_earlier or not num_new:
        return None
    names = sorted({*earlier, *new})

    def shares(counts: Mapping[str, int]) -> list[float]:
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
    """What a chi-squared variable exceeds with this chance; 0 without degrees of freedom.

    Source: Wilson and Hilferty 1931; some percent off for one or two degrees, less for more.
    """
    if degrees < 1:
        return 0.0
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + NormalDist().inv_cdf(1 - chance) * math.sqrt(spread)) ** 3
