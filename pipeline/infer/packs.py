"""Divides the images of a chunk into packs, which go through the network together."""

from collections.abc import Sequence
from dataclasses import dataclass

from model.network.config import POOLED_SIDE

TOKEN_PX = 4  # Side of the square of pixels that becomes one token of stage 1.
_EVEN_STEPS = 6  # Steps of a bisection.
_KEY_TOKENS = 8  # Side of the square of tokens of stage 1 that becomes one key, in every published network.


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of a pack; a pack of a single image may exceed them.

    Attributes:
        tokens: Largest number of tokens of stage 1. Memory and most of the work are proportional to the number of
            tokens.
        pairs: Largest number of pairs of a token and a key of stage 1, which attention compares. The number of pairs
            grows with the square of an image's area, so a pack of few large images takes many times as long as another
            pack with as many tokens.
    """

    tokens: int
    pairs: int

    def halved(self, tokens: int) -> "Budget":
        """Returns the budget to try after a pack of `tokens` tokens did not fit: half as many, at most this budget."""
        least = max(1, min(self.tokens, tokens // 2))
        return Budget(tokens=least, pairs=max(1, self.pairs * least // self.tokens))


def num_tokens(height: int, width: int) -> int:
    """Returns the tokens of stage 1 for one image: one for every 4x4 pixels, rounded up on each side."""
    return -(-height // TOKEN_PX) * -(-width // TOKEN_PX)


def num_pairs(height: int, width: int, *, linear: bool) -> int:
    """Returns the pairs of a token and a key of stage 1 for one image.

    Args:
        height, width: Size of the image in pixels.
        linear: True if the network has 7x7 keys at any size.
    """
    rows, columns = -(-height // TOKEN_PX), -(-width // TOKEN_PX)
    keys = POOLED_SIDE**2 if linear else (rows // _KEY_TOKENS) * (columns // _KEY_TOKENS)
    return rows * columns * keys


def plan_packs(
    sizes: Sequence[tuple[int, int]], budget: Budget, *, linear: bool = False, even: bool = False
) -> list[list[int]]:
    """Returns the indexes of the images of each pack; every image is in exactly one pack.

    A pack stays within the budget, or has a single image. Images of the same size are neighbours in their pack, so that
    they run as one batch.

    Args:
        sizes: (height, width) of each image, in pixels.
        budget: Limits of a pack.
        linear: True if the network has 7x7 keys at any size.
        even: True fills all packs about equally; False fills each pack as far as possible, and the last pack with the
            rest. The number of packs is the same. Over many calls even packs differ less in size.
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
    """Returns packs of the images in the given order; each image joins the pack of the previous image if it fits."""
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
