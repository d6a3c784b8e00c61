"""The operations on maps of many sizes in torch, map by map: slow, and the reference for the GPU's kernels."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.nn.functional import adaptive_avg_pool2d, conv2d, layer_norm, pad, scaled_dot_product_attention, unfold

from model.gpu.operations import patch_row
from model.gpu.tables import Maps
from model.network.config import POOLED_SIDE


def pixel_patches(
    pixels_X3: Tensor, scale_shift: Tensor, images: Maps, tokens: Maps, *, kernel: int, stride: int, dtype: torch.dtype
) -> Tensor:
    """See `Operations`."""
    rows_TP = _empty(tokens.num_rows, kernel * patch_row(kernel), pixels_X3, dtype)
    x_X3 = pixels_X3.float() * scale_shift[:3] + scale_shift[3:]
    for place, to in zip(images.places(), tokens.places(), strict=True):
        columns_PT = unfold(_map(x_X3, place), kernel, padding=kernel // 2, stride=stride)[0]
        patch_TKK3 = columns_PT.view(3, kernel, kernel, -1).permute(3, 1, 2, 0)
        _rows(rows_TP, to).copy_(pad(patch_TKK3.flatten(2), (0, patch_row(kernel) - 3 * kernel)).flatten(1))
    return rows_TP


def patches(x_TC: Tensor, maps: Maps, to: Maps, *, kernel: int, stride: int, padding: int) -> Tensor:
    """See `Operations`."""
    channels = x_TC.shape[1]
    rows_TP = _empty(to.num_rows, kernel * kernel * channels, x_TC)
    for place, target in zip(maps.places(), to.places(), strict=True):
        columns_PT = unfold(_map(x_TC, place), kernel, padding=padding, stride=stride)[0]
        patch_TKKC = columns_PT.view(channels, kernel, kernel, -1).permute(3, 1, 2, 0)
        _rows(rows_TP, target).copy_(patch_TKKC.flatten(1))
    return rows_TP


def dwconv_gelu(x_TE: Tensor, taps_9E: Tensor, bias_E: Tensor, maps: Maps, *, relu: bool) -> Tensor:
    """See `Operations`."""
    y_TE = _empty(maps.num_rows, x_TE.shape[1], x_TE)
    weight_E133 = taps_9E.t().reshape(-1, 1, 3, 3)
    for place in maps.places():
        x_1EHW = _map(x_TE, place).float()
        x_1EHW = x_1EHW.relu() if relu else x_1EHW
        y_1EHW = F.gelu(conv2d(x_1EHW, weight_E133, bias_E, padding=1, groups=len(bias_E)))
        _rows(y_TE, place).copy_(y_1EHW[0].flatten(1).t())
    return y_TE


def norm(x_TC: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float, *, gelu: bool = False) -> Tensor:
    """See `Operations`."""
    y_TC = layer_norm(x_TC.float(), x_TC.shape[1:], weight_C, bias_C, eps)
    return (F.gelu(y_TC) if gelu else y_TC).to(x_TC.dtype)


def add_norm(x_TC: Tensor, y_TC: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """See `Operations`."""
    sum_TC = x_TC.float() + y_TC.float()
    return sum_TC.to(x_TC.dtype), norm(sum_TC, weight_C, bias_C, eps).to(x_TC.dtype)


def attention(q_TC: Tensor, k_MC: Tensor, v_MC: Tensor, maps: Maps, keys: Maps, *, num_heads: int) -> Tensor:
    """See `Operations`."""
    y_TC = _empty(maps.num_rows, q_TC.shape[1], q_TC)
    for place, of_place in zip(maps.places(), keys.places(), strict=True):
        q_ATD, k_AMD, v_AMD = (
            _rows(x_TC, where).unflatten(1, (num_heads, -1)).transpose(0, 1).float()
            for x_TC, where in ((q_TC, place), (k_MC, of_place), (v_MC, of_place))
        )
        y_ATD = scaled_dot_product_attention(q_ATD[None], k_AMD[None], v_AMD[None])[0]
        _rows(y_TC, place).copy_(y_ATD.transpose(0, 1).flatten(1))
    return y_TC


def pooled(x_TC: Tensor, maps: Maps, to: Maps) -> Tensor:
    """See `Operations`."""
    y_MC = _empty(to.num_rows, x_TC.shape[1], x_TC)
    for place, target in zip(maps.places(), to.places(), strict=True):
        y_1CHW = adaptive_avg_pool2d(_map(x_TC, place).float(), POOLED_SIDE)
        _rows(y_MC, target).copy_(y_1CHW[0].flatten(1).t())
    return y_MC


def mean(x_TC: Tensor, maps: Maps) -> Tensor:
    """See `Operations`."""
    y_NC = _empty(len(maps.images), x_TC.shape[1], x_TC, torch.float32)
    for index, place in enumerate(maps.places()):
        y_NC[index] = _rows(x_TC, place).mean(dim=0, dtype=torch.float32)
    return y_NC


def _empty(rows: int, columns: int, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty(rows, columns, dtype=dtype or like.dtype, device=like.device)


def _rows(x_TC: Tensor, place: tuple[int, int, int]) -> Tensor:
    start, height, width = place
    return x_TC[start : start + height * width]


def _map(x_TC: Tensor, place: tuple[int, int, int]) -> Tensor:
    """Returns the map 1CHW of one image."""
    return _rows(x_TC, place).view(*place[1:], -1).permute(2, 0, 1)[None]
