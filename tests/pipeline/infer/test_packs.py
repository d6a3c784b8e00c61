"""Packs hold every image once and keep to their budget."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.infer.packs import Budget, num_pairs, num_tokens, plan_packs

sizes = st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 4000)), max_size=60)
budgets = st.builds(Budget, tokens=st.integers(1, 500_000), pairs=st.integers(1, 10**9))


@given(sizes, budgets, st.booleans(), st.booleans())
def test_every_image_is_in_one_pack_and_packs_keep_to_the_budget(sizes, budget, linear, even):
    packs = plan_packs(sizes, budget, linear=linear, even=even)
    assert sorted(i for pack in packs for i in pack) == list(range(len(sizes)))
    for pack in packs:
        tokens = sum(num_tokens(*sizes[i]) for i in pack)
        pairs = sum(num_pairs(*sizes[i], linear=linear) for i in pack)
        assert len(pack) == 1 or (len(pack) > 1 and tokens <= budget.tokens and pairs <= budget.pairs)


@given(sizes, budgets)
def test_a_pack_ends_only_where_the_next_image_is_too_much(sizes, budget):
    packs = plan_packs(sizes, budget)
    for pack, (first, *_) in itertools.pairwise(packs):
        together = [sizes[i] for i in [*pack, first]]
        tokens = sum(num_tokens(*size) for size in together)
        pairs = sum(num_pairs(*size, linear=False) for size in together)
        assert tokens > budget.tokens or pairs > budget.pairs


@given(sizes, budgets)
def test_even_packs_are_no_more(sizes, budget):
    assert len(plan_packs(sizes, budget, even=True)) == len(plan_packs(sizes, budget))


def test_even_packs_leave_no_small_one_for_the_end():
    images, budget = [(64, 64)] * 50, Budget(tokens=20 * 256, pairs=10**9)
    assert [len(pack) for pack in plan_packs(images, budget)] == [20, 20, 10]
    assert [len(pack) for pack in plan_packs(images, budget, even=True)] == [17, 17, 16]


@given(sizes)
def test_images_of_one_size_stand_together(sizes):
    order = [sizes[i] for pack in plan_packs(sizes, Budget(10**9, 10**15)) for i in pack]
    assert len({size for size in order}) == sum(a != b for a, b in zip([None, *order], order, strict=False))


def test_a_token_is_every_begun_square_of_four_pixels():
    assert num_tokens(4, 4) == 1
    assert num_tokens(5, 4) == 2
    assert num_tokens(375, 500) == 94 * 125


def test_a_key_is_every_whole_square_of_thirty_two_pixels_or_one_of_forty_nine():
    assert num_pairs(224, 224, linear=False) == num_pairs(224, 224, linear=True) == 3136 * 49
    assert num_pairs(375, 500, linear=False) == 94 * 125 * 11 * 15
    assert num_pairs(375, 500, linear=True) == 94 * 125 * 49


def test_large_images_are_parted_by_their_pairs_where_linear_ones_are_not():
    large, budget = [(1024, 1024)] * 4, Budget(tokens=10**6, pairs=2 * 65536 * 1024)
    assert [len(pack) for pack in plan_packs(large, budget)] == [2, 2]
    assert [len(pack) for pack in plan_packs(large, budget, linear=True)] == [4]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [(1000, Budget(500, 4000)), (4000, Budget(1000, 8000)), (2, Budget(1, 8)), (1, Budget(1, 8))],
)
def test_what_did_not_fit_is_halved_and_nothing_grows(tokens, expected):
    assert Budget(1000, 8000).halved(tokens) == expected
