"""Packs: which images of a chunk go through the network together."""

from collections.abc import Sequence
from dataclasses import dataclass

from model.network.config import POOLED_SIDE

TOKEN_PX = 4  # side of the square of pixels that becomes one token of stage 1
_EVEN_STEPS = 6  # in each, half as much is left of what is unknown
_KEY_TOKENS = 8  # side of the square of tokens of stage 1 that becomes one key, in every published network


@dataclass(frozen=True, slots=True)
class Budget:
    """What a pack may hold, unless it is a single image.

    Attributes:
        tokens: of stage 1; what memory and most of the work are proportional to.
        pairs: of a token and a key of stage 1, which attention compares. They grow with the square of an image's area,
            so that packs of few large images would take many times as long as others of as many tokens.
    """

    tokens: int
    pairs: int

    def halved(self, tokens: int) -> "Budget":
        """What is tried after a pack of so many tokens did not fit: half of it, or of this, whichever is less."""
        least = max(1, min(self.tokens, tokens // 2))
        return Budget(tokens=least, pairs=max(1, self.pairs * least // self.tokens))


def num_tokens(height: int, width: int) -> int:
    """Tokens of stage 1 for one image: one for every 4x4 pixels, rounded up on each side."""
    return -(-height // TOKEN_PX) * -(-width // TOKEN_PX)


def num_pairs(height: int, width: int, *, linear: bool) -> int:
    """Pairs of a token and a key of stage 1 for one image.

    Args:
        linear: the network has 7x7 keys at any size.
    """
    rows, columns = -(-height // TOKEN_PX), -(-width // TOKEN_PX)
    keys = POOLED_SIDE**2 if linear else (rows // _KEY_TOKENS) * (columns // _KEY_TOKENS)
    return rows * columns * keys


def plan_packs(
    sizes: Sequence[tuple[int, int]], budget: Budget, *, linear: bool = False, even: bool = False
) -> list[list[int]]:
    """Indexes of the images of each pack; every image is in exactly one.

    A pack keeps to the budget, or is a single image. Images of one size stand next to one another, so that they run as
    one batch.

    Args:
        sizes: (height, width) of each image, in pixels.
        linear: the network has 7x7 keys at any size.
        even: fill all packs alike, instead of each as far as it goes and the last with what is left. There are not more
            of them, and over many calls their sizes differ less.
    """
    tokens = [num_tokens(*size) for size in sizes]
    pairs = [num_pairs(*size, linear=linear) for size in sizes]
    order = sorted(range(len(sizes)), key=lambda i: (tokens[i], sizes[i], i))
    packs = _filled(order, tokens, pairs, budget)
    if even and len(packs) > 1:
        most, too_few = 1.0, 0.0
        for _ in range(_EVEN_STEPS):
            part = (most + too_few) / 2
            tried = _filled(order, tokens, pairs, Budget(int(part * budget.tokens), int(part * budget.pairs)))
            if len(tried) > len(packs):
                too_few = part
            else:
                most, packs = part, tried
    return packs


def _filled(order: Sequence[int], tokens: Sequence[int], pairs: Sequence[int], budget: Budget) -> list[list[int]]:
    """The images in this order, each in the pack of the one before it if it has room there."""
    packs: list[list[int]] = []
    free_tokens = free_pairs = 0
    for index in order:
        if not packs or tokens[index] > free_tokens or pairs[index] > free_pairs:
            packs.append([])
            free_tokens, free_pairs = budget.tokens, budget.pairs
        packs[-1].append(index)
        free_tokens -= tokens[index]
        free_pairs -= pairs[index]
    return packs
