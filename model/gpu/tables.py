"""Small tables that say where the tokens of each image of a pack lie, for a GPU's kernels.

The maps of a pack lie end to end, stage by stage. Each stage has two tables of int32: *images* has the first row and
the size of each image's map, and *blocks* divides the maps into blocks of at most `BLOCK` tokens of one image. A
program of a kernel processes one block, and computes row and column of its tokens by division. The shapes of the tables
depend on the capacity, not on the pack; entries that a pack does not need are maps without tokens and blocks of no
image.
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
# Sides are rounded up from stage to stage, so that a pack has more than a quarter of the tokens in the next stage.
_MARGIN = (1.0, 1.03, 1.08, 1.2)
# A capacity admits images of at least this many tokens of stage 1 on average: rows for more images would mostly stay
# empty.
_MEAN_TOKENS = 256
_MIN_IMAGES = 16

Sizes = Sequence[tuple[int, int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    """The images that fit into a graph together.

    Attributes:
        images: Number of images.
        pixels: Pixels of all images.
        tokens: Tokens of all images, for each stage.
        keys: Keys of all images, for each stage; 0 if the tokens themselves are the keys.
    """

    images: int
    pixels: int
    tokens: tuple[int, ...]
    keys: tuple[int, ...]

    def counts(self) -> np.ndarray:
        """Returns all numbers, in the order of `needs`."""
        return np.array((self.images, self.pixels, *self.tokens, *self.keys), np.int64)

    def num_blocks(self, rows: int) -> int:
        """Returns the most blocks that images with so many tokens can have; each image's last block may be short."""
        return -(-rows // BLOCK) + self.images


@dataclass(frozen=True, slots=True)
class Maps:
    """The tables of maps that lie end to end.

    Attributes:
        images: (N, 3), int32: first row, height and width of each map; zeros for an image that is not there.
        blocks: (blocks, 2), int32: image of each block, and the number of its first token in that image; the image is
            `NO_IMAGE` for a block that is not needed.
        num_rows: Rows of the matrix that holds the tokens.
    """

    images: Tensor
    blocks: Tensor
    num_rows: int

    def places(self) -> list[tuple[int, int, int]]:
        """Returns first row, height and width of the maps that are there, copied from the device."""
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
    """Returns the share of a capacity that each image needs: 1 image, pixels, tokens and keys of each stage.

    Args:
        config: Configuration of the network.
        sizes: (height, width) of each image, in pixels.

    Returns:
        (images, 10), int64.
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
    """Returns the capacity for exactly the images with these `needs`."""
    images, pixels, *rows = (int(count) for count in needed.sum(axis=0))
    return Capacity(images=images, pixels=pixels, tokens=tuple(rows[:NUM_STAGES]), keys=tuple(rows[NUM_STAGES:]))


def fits(needed: np.ndarray, capacity: Capacity) -> bool:
    """Returns whether all images with these `needs` fit into a capacity together. Their blocks then fit as well."""
    return bool((needed.sum(axis=0) <= capacity.counts()).all())


def split(needed: np.ndarray, capacity: Capacity) -> list[list[int]]:
    """Returns the indexes of images that fit together, part by part, in order. An image that does not fit is alone.

    Args:
        needed: `needs` of the images.
        capacity: Capacity into which the images of a part must fit.
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
    """Returns the number of numbers in the tables of a pack."""
    return sum(rows * columns for rows, columns in _shapes(capacity))


def write_tables(config: PVTv2Config, sizes: Sizes, capacity: Capacity, flat: np.ndarray) -> None:
    """Writes the tables of a pack one after the other.

    Args:
        config: Configuration of the network.
        sizes: (height, width) of each image, in pixels; the images must fit into the capacity.
        capacity: Capacity that gives the tables their shapes.
        flat: int32, `table_length(capacity)` numbers, which are overwritten.
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
        flat: int32, on any device.
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
    """Returns the shapes of *images* and *blocks*: for the pixels, each stage's tokens, and each stage's keys."""
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
    """Returns the sides of each image's keys, stage by stage; zeros if the tokens themselves are the keys."""
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
