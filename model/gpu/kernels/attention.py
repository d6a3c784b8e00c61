"""The kernel for attention of each image's tokens to the image's own keys.

A program processes a block of queries in one head. Scores are not written to memory: keys are processed in blocks, and
the sums so far are rescaled when a larger score appears. Sums are taken in float32; float32 inputs are multiplied
exactly, without the rounding of TF32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.gpu.kernels.places import map_of
from model.gpu.tables import BLOCK, Maps

# (keys that a program processes at once, warps of a program), for half precision and for float32. Products of float32
# take far more registers than products on tensor cores.
_HALF = (64, 4)
_SINGLE = (32, 8)
_MIN_DOT = 16  # smallest side of a matrix product in a kernel


@triton.jit
def _attention(
    q,
    k,
    v,
    images,
    key_images,
    blocks,
    out,
    q_stride,
    k_stride,
    v_stride,
    out_stride,
    scale,
    DIM: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    image = tl.load(blocks + 2 * tl.program_id(0))
    if image < 0:
        return
    start, height, width = map_of(images, image)
    key_start, key_height, key_width = map_of(key_images, image)
    num_keys = key_height * key_width
    token = tl.load(blocks + 2 * tl.program_id(0) + 1) + tl.arange(0, BLOCK)
    is_token = token < height * width
    dim = tl.arange(0, BLOCK_D)
    is_dim = dim < DIM
    channel = tl.program_id(1) * DIM + dim
    row = (start + token).to(tl.int64)
    q_mask = is_token[:, None] & is_dim[None, :]
    queries = tl.load(q + row[:, None] * q_stride + channel[None, :], mask=q_mask, other=0.0)
    largest = tl.full((BLOCK,), float("-inf"), tl.float32)
    weight = tl.zeros((BLOCK,), tl.float32)
    total = tl.zeros((BLOCK, BLOCK_D), tl.float32)
    for first in range(0, num_keys, BLOCK_K):
        key = first + tl.arange(0, BLOCK_K)
        is_key = key < num_keys
        key_row = (key_start + key).to(tl.int64)
        mask = is_key[:, None] & is_dim[None, :]
        keys = tl.load(k + key_row[:, None] * k_stride + channel[None, :], mask=mask, other=0.0)
        values = tl.load(v + key_row[:, None] * v_stride + channel[None, :], mask=mask, other=0.0)
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * scale
        scores = tl.where(is_key[None, :], scores, float("-inf"))
        now_largest = tl.maximum(largest, tl.max(scores, axis=1))
        shares = tl.exp(scores - now_largest[:, None])
        shrunk = tl.exp(largest - now_largest)
        weight = weight * shrunk + tl.sum(shares, axis=1)
        total = total * shrunk[:, None]
        total += tl.dot(shares.to(values.dtype), values, input_precision="ieee")
        largest = now_largest
    total = total / weight[:, None]
    tl.store(out + row[:, None] * out_stride + channel[None, :], total.to(out.dtype.element_ty), mask=q_mask)


def attention(q_TC: Tensor, k_MC: Tensor, v_MC: Tensor, maps: Maps, keys: Maps, *, num_heads: int) -> Tensor:
    """See `Operations`."""
    dim = q_TC.shape[1] // num_heads
    block_k, warps = _SINGLE if q_TC.dtype == torch.float32 else _HALF
    y_TC = torch.empty(q_TC.shape, dtype=q_TC.dtype, device=q_TC.device)
    _attention[(len(maps.blocks), num_heads)](
        q_TC,
        k_MC,
        v_MC,
        maps.images,
        keys.images,
        maps.blocks,
        y_TC,
        q_TC.stride(0),
        k_MC.stride(0),
        v_MC.stride(0),
        y_TC.stride(0),
        dim**-0.5,
        DIM=dim,
        BLOCK=BLOCK,
        BLOCK_K=block_k,
        BLOCK_D=max(_MIN_DOT, triton.next_power_of_2(dim)),
        num_warps=warps,
        num_stages=2,
    )
    return y_TC
