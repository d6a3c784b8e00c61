"""The layout of images of mixed sizes, end to end in one matrix of tokens."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

# Smallest step between the numbers of rows that a matrix may have. Between one power of two and the next, there are 32
# such numbers.
_LEAST_STEP = 32


@dataclass(frozen=True, slots=True)
class Group:
    """Images of one size, one after the other.

    Attributes:
        count: Number of images.
        height: Height of each image, in pixels or tokens.
        width: Width of each image, in pixels or tokens.
        start: First row of the first image.
    """

    count: int
    height: int
    width: int
    start: int = 0

    @property
    def stop(self) -> int:
        """The row after the last row of the group."""
        return self.start + self.count * self.height * self.width


@dataclass(frozen=True, slots=True)
class Layout:
    """The rows of the matrix of tokens that belong to each image of a pack, at one stage.

    Attributes:
        groups: Groups of images in the order of their rows, without gaps.
        num_rows: Number of rows of the matrix: one row for each token, then padding rows.
    """

    groups: tuple[Group, ...]
    num_rows: int

    @property
    def num_tokens(self) -> int:
        """The number of rows that hold tokens."""
        return self.groups[-1].stop

    def sides(self) -> list[int]:
        """Returns one flat list of the height and width of each image, in the order of the images' rows."""
        return [side for group in self.groups for _ in range(group.count) for side in (group.height, group.width)]


def group_by_size(sizes: Sequence[tuple[int, int]]) -> dict[tuple[int, int], list[int]]:
    """Returns, for each (height, width), the indexes of the images of this size, in the order of the pack."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, size in enumerate(sizes):
        groups[size].append(index)
    return groups


def rounded_up(num_rows: int) -> int:
    """Returns the number of rows, with padding rows, of a matrix that needs `num_rows` rows.

    Packs of many sizes then have matrices of few shapes, so that libraries prepare for few shapes, and memory that one
    pack has freed fits the next pack. From a thousand rows on, at most one row in 32 is padding.
    """
    step = max(_LEAST_STEP, 1 << max(0, num_rows.bit_length() - 6))
    return -(-num_rows // step) * step


def next_layout(groups: Sequence[Group], stride: int) -> Layout:
    """Returns the layout of a stage's tokens.

    Args:
        groups: Groups of the tokens of the stage before; for the first stage, groups of the images.
        stride: Stride of the stage's patch embedding. Sides are divided by the stride and rounded up.
    """
    placed: list[Group] = []
    start = 0
    for group in groups:
        placed.append(Group(group.count, -(-group.height // stride), -(-group.width // stride), start))
        start = placed[-1].stop
    return Layout(tuple(placed), rounded_up(start))
