"""The kernel for the layer norm of rows, which can also add a residual before the norm or apply a GELU after it."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.gpu.kernels.places import gelu

_VALUES = 2048  # values that a program processes at once


@triton.jit(do_not_specialize=["num_rows"])  # otherwise triton compiles the kernel once more for multiples of 16
def _norm(
    x,
    y,
    weight,
    bias,
    total,
    out,
    num_rows,
    eps,
    CHANNELS: tl.constexpr,
    ADD: tl.constexpr,
    GELU: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, BLOCK_C)
    is_channel = channel < CHANNELS
    is_value = (row < num_rows)[:, None] & is_channel[None, :]
    at = row.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    values = tl.load(x + at, mask=is_value, other=0.0).to(tl.float32)
    if ADD:
        values += tl.load(y + at, mask=is_value, other=0.0).to(tl.float32)
        tl.store(total + at, values.to(total.dtype.element_ty), mask=is_value)
    centred = tl.where(is_value, values - (tl.sum(values, axis=1) / CHANNELS)[:, None], 0.0)
    variance = tl.sum(centred * centred, axis=1) / CHANNELS
    normed = centred * (1.0 / tl.sqrt(variance + eps))[:, None]
    weights = tl.load(weight + channel, mask=is_channel, other=0.0)
    biases = tl.load(bias + channel, mask=is_channel, other=0.0)
    normed = normed * weights[None, :] + biases[None, :]
    if GELU:
        normed = gelu(normed)
    tl.store(out + at, normed.to(out.dtype.element_ty), mask=is_value)


def norm(x_TC: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float, *, gelu: bool = False) -> Tensor:
    """See `Operations`."""
    y_TC = torch.empty_like(x_TC)
    _launch(x_TC, x_TC, weight_C, bias_C, y_TC, y_TC, eps, add=False, gelu=gelu)
    return y_TC


def add_norm(x_TC: Tensor, y_TC: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """See `Operations`."""
    sum_TC, normed_TC = torch.empty_like(x_TC), torch.empty_like(x_TC)
    _launch(x_TC, y_TC, weight_C, bias_C, sum_TC, normed_TC, eps, add=True, gelu=False)
    return sum_TC, normed_TC


def _launch(
    x_TC: Tensor,
    y_TC: Tensor,
    weight_C: Tensor,
    bias_C: Tensor,
    sum_TC: Tensor,
    out_TC: Tensor,
    eps: float,
    *,
    add: bool,
    gelu: bool,
) -> None:
    num_rows, channels = x_TC.shape
    block_c = triton.next_power_of_2(channels)
    rows = max(1, _VALUES // block_c)
    _norm[(triton.cdiv(num_rows, rows),)](
        x_TC,
        y_TC,
        weight_C,
        bias_C,
        sum_TC,
        out_TC,
        num_rows,
        eps,
        CHANNELS=channels,
        ADD=add,
        GELU=gelu,
        ROWS=rows,
        BLOCK_C=block_c,
    )
