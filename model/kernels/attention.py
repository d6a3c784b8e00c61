"""Attention of each image's tokens to its own few keys: compiled where that was built, else torch's own."""

import ctypes

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from model.kernels.library import LANES, compiled
from model.layout import Layout

_QUERIES = 8  # that the compiled code has at work together
# Values of an image's keys in one head, up to which the compiled code takes them in half precision; for more, torch's
# products of blocks are faster.
_MAX_HALVES = 8192


def attention(q_TC: Tensor, kv_MC2: Tensor, tokens: Layout, keys: Layout, num_heads: int) -> Tensor:
    """What each token gathers, TC; rows without meaning are zero.

    Args:
        q_TC: the queries; all heads' channels, one head after the other.
        kv_MC2: the keys' channels, then the values'.
        tokens: of the queries.
        keys: of keys and values; the same groups of images.
    """
    library, depth = compiled(q_TC), q_TC.shape[1] // num_heads
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
    areas = [
        (group.height * group.width, of_group.height * of_group.width)
        for group, of_group in zip(tokens.groups, keys.groups, strict=True)
        for _ in range(group.count)
    ]
    counts = torch.tensor(areas, dtype=torch.int64)
    most = -(-max(num_keys for _, num_keys in areas) // LANES) * LANES
    space = torch.empty((2 * depth + _QUERIES) * most + 2 * _QUERIES * depth)
    y_TC = torch.empty_like(q_TC)
    y_TC[tokens.num_tokens :] = 0
    pointers = (tensor.data_ptr() for tensor in (q_TC, kv_MC2, y_TC, space))
    is_half = int(q_TC.dtype == torch.bfloat16)
    library.pvtv2_attention_1(*pointers, channels, num_heads, len(areas), counts.data_ptr(), is_half)
    return y_TC
