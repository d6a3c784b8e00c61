"""Thresholds hold what they promise: on made-up answers of known precision, the promise is rarely broken."""

import numpy as np
import pytest

from pipeline.evaluation.intervals import lower_bound
from pipeline.evaluation.thresholds import find_threshold, least_answers


def falling(num):
    """Different scores, from high to low."""
    return np.linspace(1, 0.5, num, dtype=np.float32)


@pytest.mark.parametrize(("precision", "num"), [(0.9, 29), (0.95, 59), (0.99, 299)])
def test_so_many_faultless_answers_suffice_and_one_fewer_does_not(precision, num):
    assert least_answers(precision) == num
    found = find_threshold(falling(num), np.ones(num, bool), precision)
    assert (found.accepted, found.right, found.of, found.score) == (num, num, num, pytest.approx(0.5))
    assert find_threshold(falling(num - 1), np.ones(num - 1, bool), precision) is None


def test_without_answers_or_without_right_ones_there_is_no_threshold():
    assert find_threshold(falling(0), np.ones(0, bool), 0.95) is None
    assert find_threshold(falling(500), np.zeros(500, bool), 0.95) is None


def test_answers_of_equal_scores_are_accepted_together():
    score = np.array([0.9] * 100 + [0.8] * 100, np.float32)
    right = np.array([True] * 100 + [True] * 50 + [False] * 50)
    found = find_threshold(score, right, 0.95)
    assert (found.accepted, found.score) == (100, pytest.approx(0.9))
    assert find_threshold(np.full(200, 0.9, np.float32), right, 0.95) is None


def test_the_order_of_the_answers_does_not_matter():
    rng = np.random.default_rng(1)
    score, right = rng.random(400).astype(np.float32), rng.random(400) < 0.99
    order = rng.permutation(400)
    assert find_threshold(score, right, 0.95) == find_threshold(score[order], right[order], 0.95)


def test_the_accepted_answers_themselves_show_the_precision():
    rng = np.random.default_rng(2)
    for _ in range(50):
        score = rng.random(800).astype(np.float32)
        right = rng.random(800) < 0.7 + 0.3 * score
        found = find_threshold(score, right, 0.9)
        if found is not None:
            assert lower_bound(found.right, found.accepted) >= 0.9
            assert (score >= np.float32(found.score)).sum() == found.accepted


@pytest.mark.parametrize("shape", ["level", "falling"])
def test_the_true_precision_is_missed_in_at_most_5_of_100_choices(shape):
    rng, broken = np.random.default_rng(3), 0
    for _ in range(1000):
        score = rng.random(int(rng.integers(60, 1500))).astype(np.float32)
        chance = np.full(len(score), 0.95 - 1e-9) if shape == "level" else np.clip(0.6 + 0.45 * score, 0, 1)
        found = find_threshold(score, rng.random(len(score)) < chance, 0.95)
        if found is not None:
            above = np.linspace(found.score, 1, 1000)
            true = 0.95 - 1e-9 if shape == "level" else np.clip(0.6 + 0.45 * above, 0, 1).mean()
            broken += true < 0.95
    assert broken <= 62  # five of a hundred, and what chance may add to that
