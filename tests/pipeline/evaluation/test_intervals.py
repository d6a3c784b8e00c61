"""Bounds and tests of shares agree with scipy's, which has code of its own."""

import pytest
from scipy import stats

from pipeline.evaluation.intervals import (
    binomial_cdf,
    difference_interval,
    lower_bound,
    mcnemar_p,
    wilson_interval,
)


@pytest.mark.parametrize("num", [1, 7, 100, 5000])
@pytest.mark.parametrize("share", [0.01, 0.05, 0.5, 0.97])
def test_the_binomial_distribution_is_scipys(num, share):
    for most in {0, 1, num // 3, num // 2, num - 1, num}:
        assert binomial_cdf(most, num, share) == pytest.approx(stats.binom.cdf(most, num, share), rel=1e-9, abs=1e-300)


def test_the_ends_of_the_binomial_distribution_need_no_numbers():
    assert [binomial_cdf(-1, 5, 0.5), binomial_cdf(5, 5, 0.5), binomial_cdf(2, 5, 0.0), binomial_cdf(2, 5, 1.0)] == [
        0, 1, 1, 0,
    ]  # fmt: skip


@pytest.mark.parametrize(("right", "num"), [(59, 59), (58, 58), (198, 200), (1, 3), (4750, 5000)])
def test_the_lower_bound_is_that_of_clopper_and_pearson(right, num):
    assert lower_bound(right, num) == pytest.approx(stats.beta.ppf(0.05, right, num - right + 1), abs=1e-9)


def test_59_faultless_answers_show_a_precision_of_95_percent_and_58_do_not():
    assert lower_bound(59, 59) >= 0.95 > lower_bound(58, 58)
    assert lower_bound(0, 9) == 0


@pytest.mark.parametrize(("right", "num"), [(0, 10), (5, 10), (300, 372), (372, 372)])
def test_the_interval_is_that_of_wilson(right, num):
    expected = stats.binomtest(right, num).proportion_ci(method="wilson")
    assert wilson_interval(right, num) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert wilson_interval(0, 0) is None


@pytest.mark.parametrize(("first", "second"), [(0, 0), (5, 15), (15, 5), (10, 10), (0, 6)])
def test_the_paired_test_is_the_exact_one_of_mcnemar(first, second):
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar_p(first, second) == pytest.approx(expected)


def test_the_interval_of_a_difference_covers_it_in_95_of_100_samples():
    import numpy as np

    rng, covered, num = np.random.default_rng(0), 0, 200
    for _ in range(1000):
        both = rng.choice(4, num, p=[0.5, 0.15, 0.05, 0.3])
        low, high = difference_interval(int((both == 1).sum()), int((both == 2).sum()), num)
        covered += low <= 0.10 <= high
    assert 930 <= covered <= 975
