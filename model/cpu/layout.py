"""How images of mixed sizes lie end to end in one matrix of tokens."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

# Rows of a matrix are a multiple of this, and of thirty-two numbers between one power of two and the next.
_LEAST_STEP = 32


@dataclass(frozen=True, slots=True)
class Group:
    """Images of one size, one after the other.

    Attributes:
        count: how many there are.
        height, width: of each, in pixels or tokens.
        start: of the first one's first row.
    """

    count: int
    height: int
    width: int
    start: int = 0

    @property
    def stop(self) -> int:
        """One past the last row."""
        return self.start + self.count * self.height * self.width


@dataclass(frozen=True, slots=True)
class Layout:
    """The tokens of all images of a pack at one stage.

    Attributes:
        groups: in the order of their rows, without gaps.
        num_rows: of the matrix: all tokens, then rows that mean nothing.
    """

    groups: tuple[Group, ...]
    num_rows: int

    @property
    def num_tokens(self) -> int:
        """Rows that mean something."""
        return self.groups[-1].stop

    def sides(self) -> list[int]:
        """Height and width of each image, in the order of their rows."""
        return [side for group in self.groups for _ in range(group.count) for side in (group.height, group.width)]


def group_by_size(sizes: Sequence[tuple[int, int]]) -> dict[tuple[int, int], list[int]]:
    """The indexes of the images of each size, in the order in which a pack has them."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, size in enumerate(sizes):
        groups[size].append(index)
    return groups


def rounded_up(num_rows: int) -> int:
    """How many rows a matrix gets that needs some.

    Packs of many sizes share few shapes, so that what a library prepares for a shape is used again, and freed memory
    fits the next pack; at most one row in thirty-two is too many, once there are a thousand.
    """
    step = max(_LEAST_STEP, 1 << max(0, num_rows.bit_length() - 6))
    return -(-num_rows // step) * step


def next_layout(groups: Sequence[Group], stride: int) -> Layout:
    """The layout of a stage's tokens.

    Args:
        groups: of the stage before, or of the images.
        stride: of the stage's patch embedding; sides are divided by it, and rounded up.
    """
    placed: list[Group] = []
    start = 0
    for group in groups:
        placed.append(Group(group.count, -(-group.height // stride), -(-group.width // stride), start))
        start = placed[-1].stop
    return Layout(tuple(placed), rounded_up(start))
