"""Attention of each image's tokens to the image's own keys: in compiled code if possible, else in torch."""

import ctypes

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from model.cpu.compiled import LANES, compiled, tiled
from model.cpu.layout import Layout

_TILE = 32  # tokens, keys and channels of a head that the compiled code processes together on tiles
_QUERIES = 8  # queries that the compiled code processes together without tiles
# Keys of an image times channels of a head. In half precision without tiles, the compiled code is used up to this
# product; above it, torch's matrix products are faster.
_MAX_HALVES = 8192


def attention(q_TC: Tensor, kv_MC2: Tensor, tokens: Layout, keys: Layout, num_heads: int) -> Tensor:
    """Returns the attention output TC of each token; rows past the last token are zero.

    Args:
        q_TC: Queries. The channels of a head are adjacent, head after head.
        kv_MC2: Keys and values. Each row has the channels of a key, then the channels of its value.
        tokens: Layout of the queries.
        keys: Layout of the keys and values, with the same groups of images as `tokens`.
        num_heads: Number of heads.
    """
    library, depth = tiled(q_TC.dtype, q_TC.device), q_TC.shape[1] // num_heads
    if library is not None and depth % _TILE == 0:
        return _tiled(library, q_TC, kv_MC2, tokens, keys, num_heads)
    library = compiled(q_TC)
    most = max(group.height * group.width for group in keys.groups)
    if library is None or depth % LANES or (q_TC.dtype != torch.float32 and most * depth > _MAX_HALVES):
        return _plain(q_TC, kv_MC2, tokens, keys, num_heads)
    return _compiled(library, q_TC, kv_MC2, tokens, keys, num_heads)


def _plain(q_TC: Tensor, kv_MC2: Tensor, tokens: Layout, keys: Layout, num_heads: int) -> Tensor:
    y_TC = torch.empty_like(q_TC)
    y_TC[tokens.num_tokens :] = 0
    for group, of_group in zip(tokens.groups, keys.groups, strict=True):
        heads = (group.count, -1, num_heads, q_TC.shape[1] // num_heads)
        q_BAND = q_TC[group.start : group.stop].view(heads).transpose(1, 2)
        k_MC, v_MC = kv_MC2[of_group.start : of_group.stop].chunk(2, dim=1)
        k_BAMD, v_BAMD = (
            part_MC.unflatten(0, (group.count, -1)).unflatten(-1, heads[2:]).transpose(1, 2) for part_MC in (k_MC, v_MC)
        )
        y_BAND = scaled_dot_product_attention(q_BAND, k_BAMD, v_BAMD)
        y_TC[group.start : group.stop].view(heads).copy_(y_BAND.transpose(1, 2))
    return y_TC


def _compiled(
    library: ctypes.CDLL, q_TC: Tensor, kv_MC2: Tensor, tokens: Layout, keys: Layout, num_heads: int
) -> Tensor:
    q_TC, kv_MC2 = q_TC.contiguous(), kv_MC2.contiguous()
    channels, depth = q_TC.shape[1], q_TC.shape[1] // num_heads
    counts = _counts(tokens, keys)
    most = _most_keys(keys, LANES)
    space = torch.empty((2 * depth + _QUERIES) * most + 2 * _QUERIES * depth)
    y_TC = torch.empty_like(q_TC)
    y_TC[tokens.num_tokens :] = 0
    pointers = (tensor.data_ptr() for tensor in (q_TC, kv_MC2, y_TC, space))
    is_half = int(q_TC.dtype == torch.bfloat16)
    library.pvtv2_attention_1(*pointers, channels, num_heads, len(counts), counts.data_ptr(), is_half)
    return y_TC


def _tiled(library: ctypes.CDLL, q_TC: Tensor, kv_MC2: Tensor, tokens: Layout, keys: Layout, num_heads: int) -> Tensor:
    q_TC, kv_MC2 = q_TC.contiguous(), kv_MC2.contiguous()
    channels, depth = q_TC.shape[1], q_TC.shape[1] // num_heads
    counts = _counts(tokens, keys)
    space = torch.empty((4 * depth + 6 * _TILE) * _most_keys(keys, _TILE), dtype=torch.uint8)
    y_TC = torch.empty_like(q_TC)
    y_TC[tokens.num_tokens :] = 0
    pointers = (tensor.data_ptr() for tensor in (q_TC, kv_MC2, y_TC, space))
    library.pvtv2_tiled_attention_1(*pointers, channels, num_heads, len(counts), counts.data_ptr())
    return y_TC


def _counts(tokens: Layout, keys: Layout) -> Tensor:
    """Returns a tensor (images, 2): the number of tokens and the number of keys of each image."""
    areas = [
        (group.height * group.width, of_group.height * of_group.width)
        for group, of_group in zip(tokens.groups, keys.groups, strict=True)
        for _ in range(group.count)
    ]
    return torch.tensor(areas, dtype=torch.int64)


def _most_keys(keys: Layout, step: int) -> int:
    """Returns the largest number of keys of one image, rounded up to a multiple of `step`."""
    return -(-max(group.height * group.width for group in keys.groups) // step) * step
