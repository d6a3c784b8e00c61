"""The kernel for the mean of each image's tokens, which the head reads."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.gpu.kernels.places import map_of
from model.gpu.tables import Maps

_TOKENS = 32  # tokens that a program sums at once
_CHANNELS = 64  # channels of a program


@triton.jit
def _mean(x, images, out, CHANNELS: tl.constexpr, TOKENS: tl.constexpr, BLOCK_C: tl.constexpr):
    start, height, width = map_of(images, tl.program_id(0))
    num_tokens = height * width
    if num_tokens == 0:
        return
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = channel < CHANNELS
    total = tl.zeros((BLOCK_C,), tl.float32)
    for first in range(0, num_tokens, TOKENS):
        token = first + tl.arange(0, TOKENS)
        mask = (token < num_tokens)[:, None] & is_channel[None, :]
        place = (start + token).to(tl.int64)
        values = tl.load(x + place[:, None] * CHANNELS + channel[None, :], mask=mask, other=0.0)
        total += tl.sum(values.to(tl.float32), axis=0)
    tl.store(out + tl.program_id(0) * CHANNELS + channel, total / num_tokens, mask=is_channel)


def mean(x_TC: Tensor, maps: Maps) -> Tensor:
    """See `Operations`."""
    channels, num_images = x_TC.shape[1], len(maps.images)
    y_NC = torch.empty(num_images, channels, dtype=torch.float32, device=x_TC.device)
    block_c = min(_CHANNELS, triton.next_power_of_2(channels))
    _mean[(num_images, triton.cdiv(channels, block_c))](
        x_TC, maps.images, y_NC, CHANNELS=channels, TOKENS=_TOKENS, BLOCK_C=block_c
    )
    return y_NC
