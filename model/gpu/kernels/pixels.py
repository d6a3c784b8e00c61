"""The kernel that lays out patches of images as rows of a matrix, and normalises the bytes on the way."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.gpu.kernels.places import map_of
from model.gpu.operations import patch_row
from model.gpu.tables import BLOCK, Maps


@triton.jit
def _pixel_patches(
    pixels,
    scale_shift,
    images,
    tokens,
    blocks,
    out,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    ROW: tl.constexpr,  # values in a row of a patch
    WIDE: tl.constexpr,  # `ROW`, rounded up to a power of two
    BLOCK: tl.constexpr,
):
    image = tl.load(blocks + 2 * tl.program_id(0))
    if image < 0:
        return
    patch_row = tl.program_id(1)
    start, height, width = map_of(tokens, image)
    from_start, from_height, from_width = map_of(images, image)
    token = tl.load(blocks + 2 * tl.program_id(0) + 1) + tl.arange(0, BLOCK)
    is_token = token < height * width
    row = token // width
    column = token - row * width
    value = tl.arange(0, WIDE)
    patch_column = value // 3
    channel = value - patch_column * 3
    y = row * STRIDE + patch_row - KERNEL // 2
    x = column[:, None] * STRIDE + patch_column[None, :] - KERNEL // 2
    is_inside = (is_token & (y >= 0) & (y < from_height))[:, None] & (x >= 0) & (x < from_width)
    is_inside = is_inside & (patch_column < KERNEL)[None, :]
    place = from_start + y.to(tl.int64) * from_width
    bytes_ = tl.load(pixels + (place[:, None] + x) * 3 + channel[None, :], mask=is_inside, other=0)
    scale = tl.load(scale_shift + channel)
    shift = tl.load(scale_shift + 3 + channel)
    normalised = bytes_.to(tl.float32) * scale[None, :] + shift[None, :]
    normalised = tl.where(is_inside, normalised, 0.0)
    to = (start + token).to(tl.int64)[:, None] * (KERNEL * ROW) + patch_row * ROW + value[None, :]
    tl.store(out + to, normalised.to(out.dtype.element_ty), mask=is_token[:, None] & (value < ROW)[None, :])


def pixel_patches(
    pixels_X3: Tensor, scale_shift: Tensor, images: Maps, tokens: Maps, *, kernel: int, stride: int, dtype: torch.dtype
) -> Tensor:
    """See `Operations`."""
    row = patch_row(kernel)
    rows_TP = torch.empty(tokens.num_rows, kernel * row, dtype=dtype, device=pixels_X3.device)
    _pixel_patches[(len(tokens.blocks), kernel)](
        pixels_X3,
        scale_shift,
        images.images,
        tokens.images,
        tokens.blocks,
        rows_TP,
        KERNEL=kernel,
        STRIDE=stride,
        ROW=row,
        WIDE=triton.next_power_of_2(row),
        BLOCK=BLOCK,
    )
    return rows_TP
