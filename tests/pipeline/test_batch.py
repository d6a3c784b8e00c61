from hypothesis import given
from hypothesis import strategies as st

from pipeline.batch import num_tokens, plan_packs

sizes = st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 4000)), max_size=60)


@given(sizes, st.integers(1, 500_000))
def test_every_image_is_in_one_pack_and_packs_keep_to_the_budget(sizes, budget):
    packs = plan_packs(sizes, budget)
    assert sorted(i for pack in packs for i in pack) == list(range(len(sizes)))
    for pack in packs:
        assert pack
        assert len(pack) == 1 or sum(num_tokens(*sizes[i]) for i in pack) <= budget


@given(sizes)
def test_images_of_one_size_stand_together(sizes):
    order = [sizes[i] for pack in plan_packs(sizes, 10**9) for i in pack]
    assert len({size for size in order}) == sum(a != b for a, b in zip([None, *order], order, strict=False))


def test_a_token_is_every_begun_square_of_four_pixels():
    assert num_tokens(4, 4) == 1
    assert num_tokens(5, 4) == 2
    assert num_tokens(375, 500) == 94 * 125
