"""The drift figure: by hand, under no change, and under one."""

import math

import numpy as np
import pytest

from pipeline.dataset.drift import chi_squared, find_drift, find_drift_within_sizes


def test_the_figure_is_that_of_the_formula():
    found = find_drift({"a": 6, "b": 2}, {"a": 2, "b": 6}, 0.25)
    q, p = (6.5 / 9, 2.5 / 9), (2.5 / 9, 6.5 / 9)
    assert found.psi == pytest.approx(sum((x - y) * math.log(x / y) for x, y in zip(p, q, strict=True)))
    assert found.moved == (("a", 0.75, 0.25), ("b", 0.25, 0.75))


def test_equal_shares_are_no_drift():
    found = find_drift({"a": 500, "b": 500}, {"a": 50, "b": 50}, 0.25)
    assert (found.psi, found.moved, found.is_over) == (0, (), False)


def test_with_one_side_empty_there_is_nothing_to_compare():
    assert find_drift({}, {"a": 1}, 0.25) is None
    assert find_drift({"a": 1}, {}, 0.25) is None


def test_a_class_that_one_side_lacks_leaves_the_figure_finite():
    found = find_drift({"a": 1000}, {"b": 1000}, 0.25)
    assert 10 < found.psi < 20
    assert found.is_over


@pytest.mark.parametrize("degrees", [1, 2, 9, 99, 999])
def test_the_noise_is_a_quantile_of_chi_squared(degrees):
    """Against 200,000 draws: within 2 %, and within 6 % for one or two degrees, as the approximation is known for."""
    drawn = np.quantile(np.random.default_rng(0).chisquare(degrees, 200_000), 0.999)
    assert chi_squared(degrees) == pytest.approx(drawn, rel=0.02 if degrees > 2 else 0.06)
    assert chi_squared(0) == 0


@pytest.mark.parametrize(("num_new", "num_classes"), [(20, 10), (200, 10), (2000, 10), (300, 100), (5000, 1000)])
def test_chance_alone_is_hardly_ever_taken_for_drift(num_new, num_classes):
    """300 nights of images like the earlier ones: at most 3 over the limit, where one in a thousand is promised."""
    rng = np.random.default_rng(num_classes)
    shares = rng.dirichlet(np.ones(num_classes))
    earlier = dict(enumerate(rng.multinomial(20_000, shares).tolist()))
    alarms = 0
    for _ in range(300):
        new = dict(enumerate(rng.multinomial(num_new, shares).tolist()))
        alarms += find_drift({str(k): n for k, n in earlier.items()}, {str(k): n for k, n in new.items()}, 0.1).is_over
    assert alarms <= 3


def test_a_real_shift_is_found_from_few_images_on():
    earlier = {str(digit): 100 for digit in range(10)}
    assert find_drift(earlier, {"7": 30}, 0.25).is_over
    assert not find_drift(earlier, {"7": 2}, 0.25).is_over  # two images tell nothing


def test_images_of_another_size_are_compared_with_images_of_that_size():
    """Cats are photographed large and dogs small; now most photos are large."""
    earlier = {2: {"cat": 10, "dog": 990}, 4: {"cat": 396, "dog": 4}}
    new = {2: {"cat": 1, "dog": 99}, 4: {"cat": 891, "dog": 9}}
    raw = find_drift({"cat": 406, "dog": 994}, {"cat": 892, "dog": 108}, 0.25)
    assert raw.is_over
    within = find_drift_within_sizes(earlier, new, 0.25)
    assert (within.compared, within.shows_none) == (1.0, True)
    assert within.drift.psi < 0.01


def test_other_classes_at_the_same_sizes_are_drift():
    within = find_drift_within_sizes({2: {"cat": 500, "dog": 500}}, {2: {"cat": 900, "dog": 100}}, 0.25)
    assert within.drift.is_over
    assert not within.shows_none
    assert within.drift.psi == pytest.approx(
        find_drift({"cat": 500, "dog": 500}, {"cat": 900, "dog": 100}, 0.25).psi, rel=1e-6
    )


def test_sizes_that_were_never_there_are_compared_with_nothing():
    within = find_drift_within_sizes({2: {"cat": 500}}, {4: {"cat": 90, "dog": 10}, 2: {"cat": 20}}, 0.25)
    assert within.compared == pytest.approx(1 / 6)
    assert not within.shows_none
    alone = find_drift_within_sizes({2: {"cat": 500}}, {4: {"cat": 90}}, 0.25)
    assert (alone.drift, alone.compared, alone.shows_none) == (None, 0.0, False)
    assert find_drift_within_sizes({}, {2: {"cat": 5}}, 0.25) is None
    assert find_drift_within_sizes({2: {"cat": 5}}, {}, 0.25) is None


def test_few_earlier_images_of_a_size_count_as_few():
    """The noise is that of the earlier images that the comparison rests on."""
    within = find_drift_within_sizes(
        {2: {"a": 10_000, "b": 10_000}, 4: {"a": 3, "b": 3}}, {4: {"a": 70, "b": 30}}, 0.01
    )
    assert within.drift.noise > 1 / 6


def test_one_earlier_image_of_a_size_explains_nothing():
    earlier = {2: {"cat": 5000, "dog": 5000}, 5: {"cat": 1}}
    within = find_drift_within_sizes(earlier, {5: {"car": 1000}}, 0.25)
    assert (within.compared, within.shows_none) == (1.0, False)


def test_half_of_the_new_images_say_nothing_of_the_other_half():
    within = find_drift_within_sizes({2: {"cat": 5000}}, {2: {"cat": 1000}, 5: {"car": 1000}}, 0.25)
    assert (within.compared, within.shows_none) == (0.5, False)
