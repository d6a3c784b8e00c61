"""The evaluation of predictions: accuracy, calibration and confusion, from sums over rows in one pass over the files.

Sources: top-k accuracy as in the ImageNet challenge (Russakovsky et al. 2015, section 4.1); the expected calibration
error over 15 bins of equal width as in Guo et al. 2017, section 2. Difference: the bins of Guo et al. are open at the
left; the bins here are open at the right, so that a score of 0 has a bin.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.account.sums import add_fields
from pipeline.evaluation.true_labels import Truth

NUM_BINS = 15
MOST_K = 5
# Lower bounds of the bands of image size: the native shorter side, in pixels.
BAND_SIDES_PX = (0, 64, 128, 256, 512, 1024)
COLUMNS = ("status", "error_code", "true_label", "width", "height", "label_id", "score", "topk_ids")

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Sums over some rows of a classification output.

    A labelled row has a true label that is one of the network's classes.

    Attributes:
        rows: Number of all rows.
        unlabelled: Number of rows without a true label.
        unknown: Number of rows whose true label is none of the network's classes.
        failed: Number of labelled rows without a prediction.
        not_finite: Number of rows, labelled or not, that are `ok` although their score is not finite. Such rows have no
            prediction.
        correct: Number of labelled rows by the rank of the true class among the predictions; entry k counts rank k,
            from 0.
        bands: For each band of sizes: number of labelled rows with a prediction, and number of correct rows among these
            rows.
        bins: For each bin of the best class's score: number of rows, number of correct rows, and sum of the scores.
        confusion: Number of labelled rows with a prediction by (true class, predicted class).
        failed_classes: Number of labelled rows without a prediction by true class.
    """

    rows: int = 0
    unlabelled: int = 0
    unknown: int = 0
    failed: int = 0
    not_finite: int = 0
    correct: Counts = field(default_factory=lambda: np.zeros(MOST_K, np.int64))
    bands: Counts = field(default_factory=lambda: np.zeros((len(BAND_SIDES_PX), 2), np.int64))
    bins: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((NUM_BINS, 3)))
    confusion: Mapping[tuple[int, int], int] = field(default_factory=dict)
    failed_classes: Mapping[int, int] = field(default_factory=dict)

    def __add__(self, other: "Tally") -> "Tally":
        return add_fields(self, other)

    @property
    def evaluated(self) -> int:
        """The number of labelled rows with a prediction: the denominator of accuracies."""
        return sum(self.confusion.values())


def tally(rows: pa.Table, truth: Truth) -> Tally:
    """Returns the sums over some rows of a classification output.

    Args:
        rows: Rows with the columns `COLUMNS`.
        truth: Classes of the true labels.
    """
    texts = rows.column("true_label").to_pylist()
    labelled = np.array([text is not None for text in texts], bool)
    classes = np.array([truth.classes.get(text, -1) for text in texts], np.int64)
    is_ok = np.array(rows.column("status").to_pylist()) == "ok"
    has_prediction = is_ok & np.isfinite(rows.column("score").to_numpy())
    known = labelled & (classes >= 0)
    seen = np.flatnonzero(known & has_prediction)
    unseen = Tally(
        rows=rows.num_rows,
        unlabelled=int((~labelled).sum()),
        unknown=int((labelled & ~known).sum()),
        failed=int((known & ~has_prediction).sum()),
        not_finite=int((is_ok & ~has_prediction).sum()),
        failed_classes=Counter(map(int, classes[known & ~has_prediction])),
    )
    return unseen + _tally_seen(rows.take(pa.array(seen)), classes[seen], truth) if len(seen) else unseen


def _tally_seen(predicted: pa.Table, true_N: Counts, truth: Truth) -> Tally:
    """Returns the sums over rows with a known class and a prediction.

    Args:
        predicted: Rows with a known class and a prediction, at least one row.
        true_N: True class of each row.
        truth: Classes of the true labels.
    """
    ranked_NK = np.asarray(truth.same)[np.array(predicted.column("topk_ids").to_pylist())]
    hits_NK = ranked_NK == true_N[:, None]
    # Classes that share a name count once, at the best of their ranks.
    ranks = hits_NK.argmax(1)[hits_NK.any(1)]
    is_right = hits_NK[:, 0]
    scores = predicted.column("score").to_numpy().astype(np.float64)
    shorter = np.minimum(predicted.column("width").to_numpy(), predicted.column("height").to_numpy())
    band_N = np.searchsorted(BAND_SIDES_PX, shorter, side="right") - 1
    bin_N = np.minimum((scores * NUM_BINS).astype(int), NUM_BINS - 1)
    pairs, counts = np.unique(np.stack([true_N, ranked_NK[:, 0]]), axis=1, return_counts=True)
    return Tally(
        correct=np.bincount(ranks[ranks < MOST_K], minlength=MOST_K),
        bands=np.stack([_sums(band_N, weight, len(BAND_SIDES_PX)) for weight in (None, is_right)], 1).astype(np.int64),
        bins=np.stack([_sums(bin_N, weight, NUM_BINS) for weight in (None, is_right, scores)], 1),
        confusion=Counter({(int(a), int(b)): int(n) for (a, b), n in zip(pairs.T, counts, strict=True)}),
    )


def _sums(groups: npt.NDArray[Any], weights: npt.NDArray[Any] | None, num_groups: int) -> npt.NDArray[Any]:
    return np.bincount(groups, weights, minlength=num_groups)


def describe(total: Tally, truth: Truth, labels: Sequence[str] | None, most_k: int) -> dict[str, Any]:
    """Returns accuracies, calibration and counts as values for JSON; an accuracy over no rows is None.

    Args:
        total: Sums over all rows.
        truth: Classes of the true labels.
        labels: Names of the network's classes; None if the classes have no names.
        most_k: Number of classes that each row lists.
    """
    n = total.evaluated
    top = {f"top{k}": _share(total.correct[:k].sum(), n) for k in (1, MOST_K) if k <= most_k}
    return {
        "rows": total.rows,
        "evaluated": n,
        "failed": total.failed,
        "not_finite": total.not_finite,
        "unlabelled": total.unlabelled,
        "unknown": total.unknown,
        "unknown_labels": list(truth.unknown[:20]),
        "true_labels_are": truth.by,
        "accuracy": {**top, "top1_failed_counted_wrong": _share(total.correct[0], n + total.failed)},
        "calibration_error": _calibration_error(total),
        "mean_score": _share(total.bins[:, 2].sum(), n),
        "bands": _bands(total),
        "bins": [
            {
                "from": round(i / NUM_BINS, 4),
                "images": int(count),
                "accuracy": _share(right, count),
                "score": _share(score, count),
            }
            for i, (count, right, score) in enumerate(total.bins)
        ],
        "classes": per_class(total, labels),
    }


def per_class(total: Tally, labels: Sequence[str] | None) -> list[dict[str, Any]]:
    """Returns one entry for each class that occurs as a true or a predicted class.

    The recall of a class is the class's top-1 accuracy.
    """
    true, predicted, right = Counter[int](), Counter[int](), Counter[int]()
    for (true_class, predicted_class), count in total.confusion.items():
        true[true_class] += count
        predicted[predicted_class] += count
        right[true_class] += count * (true_class == predicted_class)
    return [
        {
            "label_id": number,
            "label": labels[number] if labels else None,
            "images": true[number],
            "predicted": predicted[number],
            "failed": total.failed_classes.get(number, 0),
            "recall": _share(right[number], true[number]),
            "precision": _share(right[number], predicted[number]),
        }
        for number in sorted({*true, *predicted, *total.failed_classes})
    ]


def _bands(total: Tally) -> list[dict[str, Any]]:
    ends = (*BAND_SIDES_PX[1:], None)
    rows = zip(BAND_SIDES_PX, ends, total.bands, strict=True)
    return [
        {"shorter_side_px": [low, end], "images": int(count), "top1": _share(right, count)}
        for low, end, (count, right) in rows
    ]


def _calibration_error(total: Tally) -> float | None:
    counts, right, scores = total.bins.T
    return _share(np.abs(right - scores).sum(), counts.sum())


def _share(part: float, whole: float) -> float | None:
    return round(float(part) / float(whole), 6) if whole else None
