"""The kernel that averages each map to 7x7, for linear attention; a program averages one bin of one image."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.gpu.kernels.places import map_of
from model.gpu.tables import Maps
from model.network.config import POOLED_SIDE

_TOKENS = 16  # tokens that a program sums at once
_CHANNELS = 256  # channels of a program; many, so that few programs start for rows of the tables without an image


@triton.jit
def _pooled(
    x,
    images,
    to_images,
    out,
    CHANNELS: tl.constexpr,
    SIDE: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    start, height, width = map_of(images, tl.program_id(0))
    if height == 0:
        return
    to_start, _, _ = map_of(to_images, tl.program_id(0))
    bin_row = tl.program_id(1) // SIDE
    bin_column = tl.program_id(1) % SIDE
    top = bin_row * height // SIDE
    left = bin_column * width // SIDE
    rows = ((bin_row + 1) * height + SIDE - 1) // SIDE - top
    columns = ((bin_column + 1) * width + SIDE - 1) // SIDE - left
    channel = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = channel < CHANNELS
    total = tl.zeros((BLOCK_C,), tl.float32)
    for first in range(0, rows * columns, TOKENS):
        token = first + tl.arange(0, TOKENS)
        row = token // columns
        place = (start + (top + row) * width + left + token - row * columns).to(tl.int64)
        mask = (token < rows * columns)[:, None] & is_channel[None, :]
        values = tl.load(x + place[:, None] * CHANNELS + channel[None, :], mask=mask, other=0.0)
        total += tl.sum(values.to(tl.float32), axis=0)
    to = (to_start + tl.program_id(1)).to(tl.int64) * CHANNELS + channel
    tl.store(out + to, (total / (rows * columns)).to(out.dtype.element_ty), mask=is_channel)


def pooled(x_TC: Tensor, maps: Maps, to: Maps) -> Tensor:
    """See `Operations`."""
    channels = x_TC.shape[1]
    y_MC = torch.empty(to.num_rows, channels, dtype=x_TC.dtype, device=x_TC.device)
    block_c = min(_CHANNELS, triton.next_power_of_2(channels))
    _pooled[(len(maps.images), POOLED_SIDE**2, triton.cdiv(channels, block_c))](
        x_TC, maps.images, to.images, y_MC, CHANNELS=channels, SIDE=POOLED_SIDE, TOKENS=_TOKENS, BLOCK_C=block_c
    )
    return y_MC
