"""Where the tokens of each image of a pack lie, as small tables that a GPU's kernels read.

A pack's maps lie end to end, stage by stage. For each stage there are two tables of int32: *images* says where each
image's map starts and how large it is, *blocks* cuts the maps into blocks of at most `BLOCK` tokens of one image. A
program of a kernel takes one block and finds row and column of its tokens by division. Shapes are those of a capacity,
whatever the pack; what a pack does not need is a map without tokens or a block of no image.
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
# A capacity admits images down to this many tokens of stage 1 on average: rows for more would mostly stay empty.
_MEAN_TOKENS = 256
_MIN_IMAGES = 16

Sizes = Sequence[tuple[int, int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    """What there is room for.

    Attributes:
        images: their number.
        pixels: of all images.
        tokens: rows of each stage.
        keys: rows of each stage's keys; 0 where the tokens themselves are the keys.
    """

    images: int
    pixels: int
    tokens: tuple[int, ...]
    keys: tuple[int, ...]

    def counts(self) -> np.ndarray:
        """All numbers, in the order of `needs`."""
        return np.array((self.images, self.pixels, *self.tokens, *self.keys), np.int64)

    def num_blocks(self, rows: int) -> int:
        """Blocks that any images of so many tokens take at most: each image's last block may be short."""
        return -(-rows // BLOCK) + self.images


@dataclass(frozen=True, slots=True)
class Maps:
    """Maps that lie end to end, as a kernel sees them.

    Attributes:
        images: (N, 3), int32: first row, height and width; all zero for an image that is not there.
        blocks: (blocks, 2), int32: image, and which of its tokens is the first; image `NO_IMAGE` for none.
        num_rows: of the matrix whose rows the tokens are.
    """

    images: Tensor
    blocks: Tensor
    num_rows: int

    def places(self) -> list[tuple[int, int, int]]:
        """First row, height and width of the maps that are there; copies from the device."""
        return [(start, height, width) for start, height, width in self.images.tolist() if height]


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of a pack.

    Attributes:
        pixels: the images themselves; rows are pixels.
        tokens: of each stage.
        keys: of each stage; the tokens where they are the keys.
    """

    pixels: Maps
    tokens: tuple[Maps, ...]
    keys: tuple[Maps, ...]


def needs(config: PVTv2Config, sizes: Sizes) -> np.ndarray:
    """What each image needs, (images, 10), int64: 1, pixels, tokens of each stage, keys of each stage.

    Args:
        config: of the network.
        sizes: (height, width) of each image, in pixels.
    """
    tokens = [_area(sides) for sides in _token_sides(sizes)]
    keys = [_area(sides) for sides in _key_sides(config, _token_sides(sizes))]
    return np.stack([np.ones(len(sizes), np.int64), _area(_sides(sizes)), *tokens, *keys], axis=1)


def capacity_of(config: PVTv2Config, num_tokens: int) -> Capacity:
    """Room for a pack of about `num_tokens` tokens of stage 1, at least 64, as mixes of sizes usually need it."""
    tokens = tuple(-(-int(num_tokens * margin) // 4**stage // BLOCK) * BLOCK for stage, margin in enumerate(_MARGIN))
    images = max(_MIN_IMAGES, num_tokens // _MEAN_TOKENS)
    keys = (images * POOLED_SIDE**2,) * NUM_STAGES
    if not config.linear:
        keys = tuple(
            count // ratio**2 if ratio > 1 else 0 for count, ratio in zip(tokens, config.sr_ratios, strict=True)
        )
    return Capacity(images=images, pixels=tokens[0] * _PIXELS_PER_TOKEN, tokens=tokens, keys=keys)


def capacity_for(needed: np.ndarray) -> Capacity:
    """Room for just the images with these `needs`."""
    images, pixels, *rows = (int(count) for count in needed.sum(axis=0))
    return Capacity(images=images, pixels=pixels, tokens=tuple(rows[:NUM_STAGES]), keys=tuple(rows[NUM_STAGES:]))


def fits(needed: np.ndarray, capacity: Capacity) -> bool:
    """True if there is room for all images with these `needs`: pixels, tokens and keys of all stages, their number.

    Then their blocks fit as well, whatever the sizes.
    """
    return bool((needed.sum(axis=0) <= capacity.counts()).all())


def split(needed: np.ndarray, capacity: Capacity) -> list[list[int]]:
    """Indexes of images that fit together, in their order; an image for which there is no room is alone.

    Args:
        needed: `needs` of the images.
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
    """Numbers in the tables of a pack."""
    return sum(rows * columns for rows, columns in _shapes(capacity))


def write_tables(config: PVTv2Config, sizes: Sizes, capacity: Capacity, flat: np.ndarray) -> None:
    """Writes the tables of a pack one after the other.

    Args:
        sizes: (height, width) of each image, in pixels; they must fit.
        flat: int32, `table_length(capacity)` numbers.
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
    """The tables that `write_tables` wrote, as views.

    Args:
        flat: int32, on any device.
    """
    shapes = _shapes(capacity)
    pieces = flat.split([rows * columns for rows, columns in shapes])
    views = iter([piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)])
    rows = (capacity.pixels, *capacity.tokens, *capacity.keys)
    pixels, *maps = (Maps(next(views), next(views), count) for count in rows)
    tokens, keys = tuple(maps[:NUM_STAGES]), maps[NUM_STAGES:]
    return Tables(pixels, tokens, tuple(k if k.num_rows else t for t, k in zip(tokens, keys, strict=True)))


def _shapes(capacity: Capacity) -> list[tuple[int, int]]:
    """Of images and blocks, of the pixels, the tokens of each stage and the keys of each stage."""
    shapes = [(capacity.images, 3), (0, 2)]  # nothing goes over the pixels block by block
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
    """Zero where the tokens themselves are the keys."""
    if config.linear:
        return [np.full_like(sides, POOLED_SIDE) for sides in tokens]
    return [
        sides // ratio if ratio > 1 else np.zeros_like(sides)
        for sides, ratio in zip(tokens, config.sr_ratios, strict=True)
    ]


def _area(sides: np.ndarray) -> np.ndarray:
    return sides[:, 0] * sides[:, 1]


def device_tables(config: PVTv2Config, sizes: Sizes, capacity: Capacity, device: torch.device) -> Tables:
    """The tables of a pack on the device."""
    flat = np.empty(table_length(capacity), np.int32)
    write_tables(config, sizes, capacity, flat)
    return view_tables(torch.from_numpy(flat).to(device), capacity)
