"""Packs: which images of a chunk go through the network together."""

from collections.abc import Sequence

TOKEN_PX = 4  # side of the square of pixels that becomes one token of stage 1


def num_tokens(height: int, width: int) -> int:
    """Tokens of stage 1 for one image: one for every 4x4 pixels, rounded up on each side."""
    return -(-height // TOKEN_PX) * -(-width // TOKEN_PX)


def plan_packs(sizes: Sequence[tuple[int, int]], token_budget: int) -> list[list[int]]:
    """Indexes of the images of each pack; every image is in exactly one.

    A pack holds at most `token_budget` tokens, or a single image of more. Images of one size stand next to one another,
    so that they run as one batch.

    Args:
        sizes: (height, width) of each image, in pixels.
    """
    packs: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(sizes)), key=lambda i: (num_tokens(*sizes[i]), sizes[i], i)):
        needed = num_tokens(*sizes[index])
        if not packs or tokens + needed > token_budget:
            packs.append([])
            tokens = 0
        packs[-1].append(index)
        tokens += needed
    return packs
