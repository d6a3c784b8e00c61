"""The depthwise convolution in the MLP, with its bias and GELU, in one pass over memory instead of three."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.gpu.kernels.places import gelu, map_of
from model.gpu.tables import BLOCK, Maps

_CHANNELS = 64  # channels that a program processes at once
# Values that a thread computes. More values take more registers, so that fewer threads run and hide less of the latency
# of memory.
_THREAD = 8


@triton.jit
def _dwconv_gelu(
    x,
    taps,
    bias,
    images,
    blocks,
    out,
    CHANNELS: tl.constexpr,
    RELU: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    image = tl.load(blocks + 2 * tl.program_id(0))
    if image < 0:
        return
    start, height, width = map_of(images, image)
    token = tl.load(blocks + 2 * tl.program_id(0) + 1) + tl.arange(0, BLOCK)
    is_token = token < height * width
    row = token // width
    column = token - row * width
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = channel < CHANNELS
    place = (start + token).to(tl.int64)
    total = tl.zeros((BLOCK, BLOCK_C), tl.float32)
    for tap in tl.static_range(9):
        down = tap // 3 - 1
        right = tap % 3 - 1
        is_inside = is_token & (row + down >= 0) & (row + down < height) & (column + right >= 0)
        is_inside = is_inside & (column + right < width)
        at = (place + down * width + right)[:, None] * CHANNELS + channel[None, :]
        values = tl.load(x + at, mask=is_inside[:, None] & is_channel[None, :], other=0.0).to(tl.float32)
        if RELU:  # NaN is not below zero, and is kept
            values = tl.where(values < 0.0, 0.0, values)
        weights = tl.load(taps + tap * CHANNELS + channel, mask=is_channel, other=0.0)
        total += values * weights[None, :]
    total += tl.load(bias + channel, mask=is_channel, other=0.0)[None, :]
    to = place[:, None] * CHANNELS + channel[None, :]
    tl.store(out + to, gelu(total).to(out.dtype.element_ty), mask=is_token[:, None] & is_channel[None, :])


def dwconv_gelu(x_TE: Tensor, taps_9E: Tensor, bias_E: Tensor, maps: Maps, *, relu: bool) -> Tensor:
    """See `Operations`."""
    channels = x_TE.shape[1]
    y_TE = torch.empty_like(x_TE)
    block_c = min(_CHANNELS, triton.next_power_of_2(channels))
    _dwconv_gelu[(len(maps.blocks), triton.cdiv(channels, block_c))](
        x_TE,
        taps_9E,
        bias_E,
        maps.images,
        maps.blocks,
        y_TE,
        CHANNELS=channels,
        RELU=relu,
        BLOCK=BLOCK,
        BLOCK_C=block_c,
        num_warps=max(1, BLOCK * block_c // (32 * _THREAD)),
    )
    return y_TE
