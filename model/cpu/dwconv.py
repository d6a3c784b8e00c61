"""The depthwise convolution in the MLP, with its bias and GELU, over maps of many sizes, end to end in one matrix.

The results of the compiled code and of torch's own operations differ only in the last digits.
"""

import ctypes

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from model.cpu.compiled import compiled
from model.cpu.layout import Layout


def dwconv_gelu(x_TE: Tensor, weight_E133: Tensor, bias_E: Tensor, layout: Layout, *, relu: bool = False) -> Tensor:
    """Returns the tokens TE after a depthwise 3x3 convolution of each map and a GELU.

    Zeros surround each map in the convolution. Rows of the result past the last token are zero. The compiled code sums
    half precision in float32.

    Args:
        x_TE: Tokens of all maps. With `relu`, the call may change `x_TE`.
        weight_E133: Weights of the convolution.
        bias_E: Bias of the convolution.
        layout: Layout of the tokens.
        relu: Apply a ReLU to `x_TE` first.
    """
    library = compiled(x_TE)
    if library is not None:
        return _compiled(library, x_TE, weight_E133, bias_E, layout, relu)
    return _plain(x_TE, weight_E133, bias_E, layout, relu)


def _plain(x_TE: Tensor, weight_E133: Tensor, bias_E: Tensor, layout: Layout, relu: bool) -> Tensor:
    if relu:
        x_TE = x_TE.relu_()
    y_TE = torch.empty_like(x_TE)
    y_TE[layout.num_tokens :] = 0
    for group in layout.groups:
        shape = (group.count, group.height, group.width, -1)
        x_BEHW = x_TE[group.start : group.stop].view(shape).permute(0, 3, 1, 2)
        y_BEHW = torch.ops.aten.gelu_(conv2d(x_BEHW, weight_E133, bias_E, padding=1, groups=len(bias_E)))
        y_TE[group.start : group.stop].view(shape).copy_(y_BEHW.permute(0, 2, 3, 1))
    return y_TE


def _compiled(
    library: ctypes.CDLL, x_TE: Tensor, weight_E133: Tensor, bias_E: Tensor, layout: Layout, relu: bool
) -> Tensor:
    channels = len(bias_E)
    x_TE, taps_9E, bias_E = x_TE.contiguous(), weight_E133.view(channels, 9).t().float().contiguous(), bias_E.float()
    sides = torch.tensor(layout.sides(), dtype=torch.int64)
    y_TE = torch.empty_like(x_TE)
    y_TE[layout.num_tokens :] = 0
    pointers = (tensor.data_ptr() for tensor in (x_TE, taps_9E, bias_E, y_TE))
    is_half = x_TE.dtype == torch.bfloat16
    library.pvtv2_dwconv_gelu_2(*pointers, channels, len(sides) // 2, sides.data_ptr(), int(relu), int(is_half))
    return y_TE
