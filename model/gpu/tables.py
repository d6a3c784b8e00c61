"""Small tables that say where the tokens of each image of a pack lie, for a GPU's kernels.

The maps of a pack lie end to end, stage by stage. Each stage has two tables of int32: *images* has the first row and
the size of each image's map, and *blocks* divides the maps into blocks of at most `BLOCK` tokens of one image. A
program of a kernel processes one block, and computes row and column of its tokens by division. The shapes of the tables
depend on the capacity, not on the pack: a pack smaller than the capacity leaves maps without tokens, and blocks that
belong to no image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.network.config import NUM_STAGES, POOLED_SIDE, STRIDES, PVTv2Config

BLOCK = 64  # tokens; a power of two
NO_IMAGE = -1
_PIXELS_PER_TOKEN = STRIDES[0] ** 2
# Factors by which each stage of a capacity has more than 1 / 4**stage of the tokens of stage 1. The factors are needed
# since sides are rounded up from stage to stage.
_MARGIN = (1.0, 1.03, 1.08, 1.2)
# Tokens of stage 1 for each image of a large capacity. Room for more and smaller images would mostly stay empty.
_MEAN_TOKENS = 256
_MIN_IMAGES = 16

Sizes = Sequence[tuple[int, int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    """The room of a graph: the largest pack that the graph can run.

    Attributes:
        images: Largest number of images.
        pixels: Largest number of pixels of all images together.
        tokens: Largest number of tokens of all images together, for each stage.
        keys: Largest number of keys of all images together, for each stage; 0 if the tokens themselves are the keys.
    """

    images: int
    pixels: int
    tokens: tuple[int, ...]
    keys: tuple[int, ...]

    def counts(self) -> np.ndarray:
        """Returns images, pixels, tokens and keys as one array, in the order of the columns of `needs`."""
        return np.array((self.images, self.pixels, *self.tokens, *self.keys), np.int64)

    def num_blocks(self, rows: int) -> int:
        """Returns the largest number of blocks of images that have `rows` tokens together.

        The last block of each image may be short.
        """
        return -(-rows // BLOCK) + self.images


@dataclass(frozen=True, slots=True)
class Maps:
    """The tables of maps that lie end to end.

    Attributes:
        images: First row, height and width of each image's map, (N, 3), int32. A pack of fewer than N images leaves
            zeros.
        blocks: Image of each block, and position of the block's first token in that image, (blocks, 2), int32. The
            image of a block that is not needed is `NO_IMAGE`.
        num_rows: Number of rows of the matrix that holds the tokens.
    """

    images: Tensor
    blocks: Tensor
    num_rows: int

    def places(self) -> list[tuple[int, int, int]]:
        """Returns the first row, height and width of each image's map, copied from the device to the host."""
        return [(start, height, width) for start, height, width in self.images.tolist() if height]


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of a pack.

    Attributes:
        pixels: Tables of the images themselves, whose rows are pixels.
        tokens: Tables of each stage's tokens.
        keys: Tables of each stage's keys; the same as `tokens` if the tokens themselves are the keys.
    """

    pixels: Maps
    tokens: tuple[Maps, ...]
    keys: tuple[Maps, ...]


def needs(config: PVTv2Config, sizes: Sizes) -> np.ndarray:
    """Returns the room that each image needs in a capacity: one image, its pixels, its tokens and keys of each stage.

    Args:
        config: Configuration of the network.
        sizes: (height, width) of each image, in pixels.

    Returns:
        Array (images, 10) of int64: one row for each image, with columns in the order of `Capacity`.
    """
    tokens = [_area(sides) for sides in _token_sides(sizes)]
    keys = [_area(sides) for sides in _key_sides(config, _token_sides(sizes))]
    return np.stack([np.ones(len(sizes), np.int64), _area(_sides(sizes)), *tokens, *keys], axis=1)


def capacity_of(config: PVTv2Config, num_tokens: int) -> Capacity:
    """Returns a capacity for about `num_tokens` tokens of stage 1 (at least 64) in images of usual sizes."""
    tokens = tuple(-(-int(num_tokens * margin) // 4**stage // BLOCK) * BLOCK for stage, margin in enumerate(_MARGIN))
    images = max(_MIN_IMAGES, num_tokens // _MEAN_TOKENS)
    keys = (images * POOLED_SIDE**2,) * NUM_STAGES
    if not config.linear:
        keys = tuple(
            count // ratio**2 if ratio > 1 else 0 for count, ratio in zip(tokens, config.sr_ratios, strict=True)
        )
    return Capacity(images=images, pixels=tokens[0] * _PIXELS_PER_TOKEN, tokens=tokens, keys=keys)


def capacity_for(needed: np.ndarray) -> Capacity:
    """Returns a capacity with room for exactly the images whose `needs` are the rows of `needed`."""
    images, pixels, *rows = (int(count) for count in needed.sum(axis=0))
    return Capacity(images=images, pixels=pixels, tokens=tuple(rows[:NUM_STAGES]), keys=tuple(rows[NUM_STAGES:]))


def fits(needed: np.ndarray, capacity: Capacity) -> bool:
    """Returns whether the images whose `needs` are the rows of `needed` fit into a capacity together.

    The blocks of such images then fit into the tables of the capacity too.
    """
    return bool((needed.sum(axis=0) <= capacity.counts()).all())


def split(needed: np.ndarray, capacity: Capacity) -> list[list[int]]:
    """Splits images, in order, into parts that fit into a capacity; returns the indexes of the images of each part.

    An image that does not fit into the capacity is a part of its own.

    Args:
        needed: `needs` of the images.
        capacity: Capacity into which the images of each part must fit together.
    """
    parts: list[list[int]] = []
    room = used = capacity.counts()
    for index, counts in enumerate(needed):
        if not parts or (used + counts > room).any():
            parts.append([])
            used = np.zeros_like(counts)
        parts[-1].append(index)
        used = used + counts
    return parts


def table_length(capacity: Capacity) -> int:
    """Returns how many int32 numbers the tables of a pack have together."""
    return sum(rows * columns for rows, columns in _shapes(capacity))


def write_tables(config: PVTv2Config, sizes: Sizes, capacity: Capacity, flat: np.ndarray) -> None:
    """Writes the tables of a pack into an array, one table after the other.

    Args:
        config: Configuration of the network.
        sizes: (height, width) of each image, in pixels; the images must fit into the capacity.
        capacity: Capacity that gives the tables their shapes.
        flat: Array of `table_length(capacity)` int32 numbers, which are overwritten.
    """
    tokens = _token_sides(sizes)
    keys = _key_sides(config, tokens)
    shapes = iter(_shapes(capacity))
    at = 0
    for sides in (_sides(sizes), *tokens, *keys):
        areas = _area(sides)
        parts = []
        for rows, columns in (next(shapes), next(shapes)):
            parts.append(flat[at : at + rows * columns].reshape(rows, columns))
            at += rows * columns
        images, blocks = parts
        images[:] = 0
        images[: len(sides), 0] = np.cumsum(areas) - areas
        images[: len(sides), 1:] = sides
        blocks[:] = NO_IMAGE, 0
        if len(blocks):
            counts = -(-areas // BLOCK)
            total = int(counts.sum())
            blocks[:total, 0] = np.repeat(np.arange(len(sides)), counts)
            blocks[:total, 1] = (np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)) * BLOCK


def view_tables(flat: Tensor, capacity: Capacity) -> Tables:
    """Returns the tables that `write_tables` wrote, as views.

    Args:
        flat: Numbers that `write_tables` wrote: int32, on any device.
        capacity: Capacity for which the tables were written.
    """
    shapes = _shapes(capacity)
    pieces = flat.split([rows * columns for rows, columns in shapes])
    views = iter([piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)])
    rows = (capacity.pixels, *capacity.tokens, *capacity.keys)
    pixels, *maps = (Maps(next(views), next(views), count) for count in rows)
    tokens, keys = tuple(maps[:NUM_STAGES]), maps[NUM_STAGES:]
    return Tables(pixels, tokens, tuple(k if k.num_rows else t for t, k in zip(tokens, keys, strict=True)))


def _shapes(capacity: Capacity) -> list[tuple[int, int]]:
    """Returns the shapes of the tables *images* and *blocks* of the pixels, of each stage's tokens, and of its keys."""
    shapes = [(capacity.images, 3), (0, 2)]  # no kernel processes the pixels block by block
    for rows in (*capacity.tokens, *capacity.keys):
        shapes += [(capacity.images, 3), (capacity.num_blocks(rows) if rows else 0, 2)]
    return shapes


def _sides(sizes: Sizes) -> np.ndarray:
    return np.array(sizes, np.int64).reshape(-1, 2)


def _token_sides(sizes: Sizes) -> list[np.ndarray]:
    sides, found = _sides(sizes), []
    for stride in STRIDES:
        sides = -(-sides // stride)
        found.append(sides)
    return found


def _key_sides(config: PVTv2Config, tokens: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the height and width of each image's map of keys, stage by stage; zeros if tokens themselves are keys."""
    if config.linear:
        return [np.full_like(sides, POOLED_SIDE) for sides in tokens]
    return [
        sides // ratio if ratio > 1 else np.zeros_like(sides)
        for sides, ratio in zip(tokens, config.sr_ratios, strict=True)
    ]


def _area(sides: np.ndarray) -> np.ndarray:
    return sides[:, 0] * sides[:, 1]


def device_tables(config: PVTv2Config, sizes: Sizes, capacity: Capacity, device: torch.device) -> Tables:
    """Returns the tables of a pack on the device."""
    flat = np.empty(table_length(capacity), np.int32)
    write_tables(config, sizes, capacity, flat)
    return view_tables(torch.from_numpy(flat).to(device), capacity)
