"""`--accept-precision`: chooses the least scores of accepted labels so that enough of these labels are right.

The labelled images of a calibration choose the scores (`pipeline.evaluation.thresholds`). Each label that has images
enough gets a score of its own. The other labels share one common score, which their images alone choose: good labels
would carry it, and hide the bad ones. If no score of these labels reaches the precision, they need a review. Images
that did not choose say how good the choice is.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.dataset.policy import Policy
from pipeline.errors import ConfigError
from pipeline.evaluation.calibration import Calibration
from pipeline.evaluation.intervals import binomial_cdf, lower_bound
from pipeline.evaluation.thresholds import Threshold, find_threshold, least_answers

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AcceptConfig:
    """The target of accepted labels.

    Attributes:
        precision: Share of accepted labels that is right; the choice reaches it with 95 % confidence.
        calibration: Labelled images that choose and judge.
    """

    precision: float
    calibration: Calibration

    def __post_init__(self) -> None:
        if not 0.5 <= self.precision < 1:
            raise ConfigError(f"--accept-precision must lie in 0.5..1, without 1, not {self.precision:g}")


@dataclass(frozen=True, kw_only=True)
class Accepting:
    """The chosen scores.

    Attributes:
        precision: The target.
        common: Threshold of all labels without one of their own; None if there are none, or if these need a review.
        own: Threshold of single labels.
        by_common: Labels that use the common threshold.
        judged: Number of images that judge; `accepted` of them have an accepted label, and `right` of these are right.
    """

    precision: float
    common: Threshold | None
    own: Mapping[str, Threshold]
    by_common: tuple[str, ...]
    judged: int
    accepted: int
    right: int

    def applied_to(self, policy: Policy) -> Policy:
        """Returns the policy with these scores."""
        scores = {label: threshold.score for label, threshold in self.own.items()}
        if self.common is None:
            return replace(policy, class_scores=scores, review_others=True)
        return replace(policy, accept_score=self.common.score, class_scores=scores)

    def summary(self) -> dict[str, Any]:
        """Returns the choice and its judgement as values for JSON."""
        return {
            "precision": self.precision,
            "score": None if self.common is None else self.common.score,
            "chosen_by": None if self.common is None else asdict(self.common),
            "labels_with_own_score": {label: asdict(threshold) for label, threshold in self.own.items()},
            "labels_by_common_score": list(self.by_common),
            "held_out": {
                "images": self.judged,
                "accepted": self.accepted,
                "right": self.right,
                "precision": round(self.right / self.accepted, 6) if self.accepted else None,
                "precision_at_least": round(lower_bound(self.right, self.accepted), 6),
            },
        }


def choose_scores(config: AcceptConfig, policy: Policy, model_labels: Sequence[str]) -> Accepting:
    """Chooses the scores for the labels that a policy gives.

    Args:
        policy: Maps classes of the network to labels; its scores are not used.
        model_labels: Name of each class of the network.

    Raises:
        ConfigError: No score reaches the precision, or the calibration is that of another number of classes.
    """
    rows = config.calibration.rows
    true_id, label_id = (rows.column(name).to_numpy() for name in ("true_id", "label_id"))
    if len(rows) and max(true_id.max(), label_id.max()) >= len(model_labels):
        raise ConfigError("--calibration has more classes than these weights; evaluate these weights")
    label_of = [policy.label_of(name) for name in model_labels]
    given = np.array([label_of[index] or "" for index in label_id], np.str_)
    is_kept = np.array([label_of[index] is not None for index in label_id], bool)
    is_right = np.array([label_of[a] == label_of[b] for a, b in zip(true_id, label_id, strict=True)], bool)
    score = rows.column("score").to_numpy()
    chooses = rows.column("chooses").to_numpy(zero_copy_only=False) & is_kept
    judges = ~rows.column("chooses").to_numpy(zero_copy_only=False) & is_kept
    labels = policy.labels(model_labels)
    own = {}
    for label in labels:
        of_label = chooses & (given == label)
        found = find_threshold(score[of_label], is_right[of_label], config.precision)
        if found is not None:
            own[label] = found
    others = chooses & ~np.isin(given, list(own))
    common = find_threshold(score[others], is_right[others], config.precision)
    if common is None and not own:
        raise ConfigError(
            f"--accept-precision {config.precision:g}: no score reaches it with 95 % confidence on the "
            f"{int(chooses.sum())} images that choose, of which {_percent(is_right[chooses])} are right. It takes "
            f"{least_answers(config.precision)} right labels without a wrong one, or more with some: evaluate more "
            "images, ask for less, or use a better network or size"
        )
    otherwise = math.inf if common is None else common.score
    least = np.array([own[label].score if label in own else otherwise for label in given], np.float32)
    accepted = judges & (score >= least)
    chosen = Accepting(
        precision=config.precision,
        common=common,
        own=own,
        by_common=tuple(label for label in labels if label not in own),
        judged=int(judges.sum()),
        accepted=int(accepted.sum()),
        right=int(is_right[accepted].sum()),
    )
    _log(chosen)
    return chosen


def _log(chosen: Accepting) -> None:
    held_out = chosen.summary()["held_out"]
    logger.info(
        "accept.chosen precision=%g score=%s own_scores=%d by_common_score=%r held_out=%s",
        *(chosen.precision, None if chosen.common is None else round(chosen.common.score, 4)),
        *(len(chosen.own), _few(chosen.by_common), held_out),
    )
    if chosen.common is None and chosen.by_common:
        logger.warning(
            "accept.review labels=%r: no score of these labels reaches the precision, so that all their images need a "
            "review; evaluate more images of them",
            _few(chosen.by_common),
        )
    if chosen.accepted and binomial_cdf(chosen.right, chosen.accepted, chosen.precision) < 0.05:
        logger.warning(
            "accept.not_reached precision=%g held_out=%s: on images that did not choose, accepted labels are right "
            "less often; evaluate more images",
            *(chosen.precision, held_out["precision"]),
        )


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


def _percent(is_right: npt.NDArray[np.bool_]) -> str:
    return f"{100 * is_right.mean():.1f} %" if len(is_right) else "none"
