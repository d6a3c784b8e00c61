"""Chooses the least score with which answers are accepted, so that their precision reaches a target with confidence.

Scores are tried from the highest to lower ones. Each try is an exact binomial test of the hypothesis that the answers
above the score are right less often than the target says. Trying many scores makes one lucky score likely; so the tests
share the permitted error: a test begins at some numbers of answers, each twice the one before, with an equal part of
the error; a test that succeeds hands its part on to the next lower score, a test that fails loses its part. With this
order the chance that any accepted score is wrong stays below the permitted error.

Sources: Angelopoulos et al. 2021, "Learn then Test", for thresholds as hypotheses; Wiens and Dmitrienko 2005 for the
order of the tests (fallback procedure). Difference: scores are tried in steps of a hundredth of the answers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.intervals import CONFIDENCE, binomial_cdf

_STEP = 1.01


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """The least score of accepted answers, and the answers that it was chosen by.

    Attributes:
        score: Least score of an accepted answer.
        accepted, right: Number of answers with this score or a higher one, and number of right answers among them.
        of: Number of all answers.
    """

    score: float
    accepted: int
    right: int
    of: int


def least_answers(precision: float, error: float = 1 - CONFIDENCE) -> int:
    """Returns the number of answers, all of them right, that show the precision with an error below `error`."""
    return math.ceil(math.log(error) / math.log(precision))


def find_threshold(
    score_N: npt.NDArray[np.float32], is_right_N: npt.NDArray[np.bool_], precision: float
) -> Threshold | None:
    """Returns the lowest threshold that shows the precision with 95 % confidence; None if none does.

    Args:
        score_N: Score of each answer.
        is_right_N: True for each right answer.
        precision: Target, more than 0 and less than 1.
    """
    num = len(score_N)
    order = np.argsort(-score_N, kind="stable")
    sorted_N, wrong_N = score_N[order], np.cumsum(~is_right_N[order])
    # Answers of equal scores are accepted together.
    ends = np.flatnonzero(np.append(sorted_N[1:] < sorted_N[:-1], True)) + 1 if num else np.array([], np.int64)
    starts = _starts(num, precision)
    part = (1 - CONFIDENCE) / max(1, len(starts))
    error, found = 0.0, 0
    for at in _tried(ends, starts):
        while starts and at >= starts[0]:
            error, starts = error + part, starts[1:]
        if not error:
            continue
        if binomial_cdf(int(wrong_N[at - 1]), at, 1 - precision) <= error:
            found = at
        else:
            error = 0.0
    if not found:
        return None
    return Threshold(score=float(sorted_N[found - 1]), accepted=found, right=found - int(wrong_N[found - 1]), of=num)


def _starts(num: int, precision: float) -> list[int]:
    """Returns the numbers of answers at which tests begin; they depend on the number of all answers alone."""
    count = 1
    while True:
        first = least_answers(precision, (1 - CONFIDENCE) / (count + 1))
        if first * 2**count > num:
            break
        count += 1
    first = least_answers(precision, (1 - CONFIDENCE) / count)
    return [first * 2**at for at in range(count) if first * 2**at <= num]


def _tried(ends: npt.NDArray[np.int64], starts: Sequence[int]) -> list[int]:
    """Returns the numbers of accepted answers that are tested, ascending."""
    tried: list[int] = []
    least, marks = starts[0] if starts else 0, list(starts)
    for end in ends.tolist():
        is_start = bool(marks) and end >= marks[0]
        while marks and end >= marks[0]:
            marks.pop(0)
        if starts and end >= least and (is_start or end >= tried[-1] * _STEP or end == ends[-1]):
            tried.append(end)
    return tried
