"""The kernel that lays out patches of maps as rows of a matrix, for patch embeddings and for the reduction of keys."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.gpu.kernels.places import map_of
from model.gpu.tables import BLOCK, Maps

_MAX_CHANNELS = 64  # channels that a program copies at once


@triton.jit
def _patches(
    x,
    images,
    to_images,
    blocks,
    out,
    CHANNELS: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    image = tl.load(blocks + 2 * tl.program_id(0))
    if image < 0:
        return
    patch_row = tl.program_id(1)
    start, height, width = map_of(to_images, image)
    from_start, from_height, from_width = map_of(images, image)
    token = tl.load(blocks + 2 * tl.program_id(0) + 1) + tl.arange(0, BLOCK)
    is_token = token < height * width
    row = token // width
    column = token - row * width
    from_row = row * STRIDE + patch_row - PADDING
    is_row = is_token & (from_row >= 0) & (from_row < from_height)
    to = (start + token).to(tl.int64) * (KERNEL * KERNEL * CHANNELS) + patch_row * KERNEL * CHANNELS
    for patch_column in range(KERNEL):
        from_column = column * STRIDE + patch_column - PADDING
        is_inside = is_row & (from_column >= 0) & (from_column < from_width)
        place = (from_start + from_row * from_width + from_column).to(tl.int64) * CHANNELS
        for first in range(0, CHANNELS, BLOCK_C):
            channel = first + tl.arange(0, BLOCK_C)
            is_channel = (channel < CHANNELS)[None, :]
            values = tl.load(x + place[:, None] + channel[None, :], mask=is_inside[:, None] & is_channel, other=0.0)
            target = to[:, None] + patch_column * CHANNELS + channel[None, :]
            tl.store(out + target, values, mask=is_token[:, None] & is_channel)


def patches(x_TC: Tensor, maps: Maps, to: Maps, *, kernel: int, stride: int, padding: int) -> Tensor:
    """See `Operations`."""
    channels = x_TC.shape[1]
    rows_TP = torch.empty(to.num_rows, kernel * kernel * channels, dtype=x_TC.dtype, device=x_TC.device)
    _patches[(len(to.blocks), kernel)](
        x_TC,
        maps.images,
        to.images,
        to.blocks,
        rows_TP,
        CHANNELS=channels,
        KERNEL=kernel,
        STRIDE=stride,
        PADDING=padding,
        BLOCK=BLOCK,
        BLOCK_C=min(_MAX_CHANNELS, triton.next_power_of_2(channels)),
    )
    return rows_TP
