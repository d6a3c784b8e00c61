"""Images lie end to end, without gaps, in the order of their groups."""

from hypothesis import given
from hypothesis import strategies as st

from model.cpu.layout import Group, group_by_size, next_layout, rounded_up
from model.network.config import STRIDES, stage_sides

SIZES = st.lists(st.tuples(st.integers(32, 300), st.integers(32, 300)), min_size=1, max_size=12)


@given(SIZES)
def test_every_image_is_in_the_group_of_its_size(sizes):
    groups = group_by_size(sizes)
    assert sorted(index for indexes in groups.values() for index in indexes) == list(range(len(sizes)))
    assert all(sizes[index] == size for size, indexes in groups.items() for index in indexes)


@given(SIZES)
def test_the_tokens_of_each_stage_follow_one_another_and_rows_are_rounded_up(sizes):
    groups = [Group(len(indexes), *size) for size, indexes in group_by_size(sizes).items()]
    expected = [stage_sides(*size) for size in sizes]
    for stage, stride in enumerate(STRIDES):
        layout = next_layout(groups, stride)
        groups = list(layout.groups)
        assert [group.start for group in groups] == [0, *(group.stop for group in groups[:-1])]
        assert layout.num_tokens == sum(sides[stage][0] * sides[stage][1] for sides in expected)
        assert layout.num_rows == rounded_up(layout.num_tokens)
        by_image = sorted(zip(layout.sides()[::2], layout.sides()[1::2], strict=True))
        assert by_image == sorted(sides[stage] for sides in expected)


@given(st.integers(1, 2**20))
def test_rows_are_rounded_up_to_few_numbers_and_not_by_much(num_rows):
    rows = rounded_up(num_rows)
    assert rows % 32 == 0
    assert num_rows <= rows < num_rows + max(32, num_rows / 31)
    assert rounded_up(rows) == rows


def test_between_one_power_of_two_and_the_next_are_thirty_two_numbers_of_rows():
    for power in range(10, 18):
        assert len({rounded_up(num_rows) for num_rows in range(2**power + 1, 2 ** (power + 1) + 1)}) == 32
