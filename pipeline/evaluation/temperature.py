"""Fits one temperature to logits, so that scores say how often answers are right.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2: logits are divided by one number,
which minimises the negative log-likelihood on labelled images. The best class does not change. Difference: as in Platt
1999, section 2.2, the target of the true class is (n + 1) / (n + 2) for n images, and the other classes share the rest.
So a network that is right on all images gets a score that so many images can show, and not 1.
"""

import math

import numpy as np
import numpy.typing as npt

LEAST, MOST = 0.05, 20.0
"""Bounds of a temperature."""

_ROUNDS = 60
_ROWS = 4096

Logits = npt.NDArray[np.float32]


def fit_temperature(logits_NC: Logits, class_N: npt.NDArray[np.int64]) -> float:
    """Returns the temperature that minimises the loss, between `LEAST` and `MOST`.

    Args:
        logits_NC: Logits of at least one image.
        class_N: True class of each image.
    """
    # The loss is convex in the inverse of the temperature, so the sign of its slope shows on which side the minimum is.
    low, high = math.log(1 / MOST), math.log(1 / LEAST)
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        if high - low < 1e-5:
            break
        if _slope(logits_NC, class_N, math.exp(middle)) > 0:
            high = middle
        else:
            low = middle
    return math.exp(-(low + high) / 2)


def scores_at(logits_NC: Logits, temperature: float) -> Logits:
    """Returns the softmax of the logits at a temperature, float32."""
    scaled_NC = logits_NC.astype(np.float32) / np.float32(temperature)
    scaled_NC -= scaled_NC.max(axis=1, keepdims=True)
    np.exp(scaled_NC, out=scaled_NC)
    scaled_NC /= scaled_NC.sum(axis=1, keepdims=True)
    return scaled_NC


def log_loss(logits_NC: Logits, class_N: npt.NDArray[np.int64], temperature: float) -> float:
    """Returns the mean negative log-likelihood of the true classes, in nats."""
    total = 0.0
    for rows in _parts(len(class_N)):
        scaled_NC = logits_NC[rows].astype(np.float64) / temperature
        top_N1 = scaled_NC.max(axis=1, keepdims=True)
        sums_N = np.log(np.exp(scaled_NC - top_N1).sum(axis=1)) + top_N1[:, 0]
        total += float((sums_N - scaled_NC[np.arange(len(scaled_NC)), class_N[rows]]).sum())
    return total / len(class_N)


def _slope(logits_NC: Logits, class_N: npt.NDArray[np.int64], inverse: float) -> float:
    """Returns the derivative of the summed loss by the inverse of the temperature."""
    total, num_classes = 0.0, logits_NC.shape[1]
    rest = 1 / (len(class_N) + 2) if num_classes > 1 else 0.0
    for rows in _parts(len(class_N)):
        part_NC = logits_NC[rows]
        mean_N = (scores_at(part_NC, 1 / inverse) * part_NC).sum(axis=1)
        true_N = part_NC[np.arange(len(part_NC)), class_N[rows]]
        others_N = (part_NC.sum(axis=1) - true_N) / max(1, num_classes - 1)
        total += float((mean_N - (1 - rest) * true_N - rest * others_N).sum(dtype=np.float64))
    return total


def _parts(num: int) -> list[slice]:
    return [slice(start, start + _ROWS) for start in range(0, num, _ROWS)]
