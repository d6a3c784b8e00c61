"""The depthwise convolution in the MLP, its bias and GELU, over maps of many sizes that lie end to end.

Compiled (`cpu.c`) where the package was installed with a C compiler at hand; else torch's own operations, which give
the same to the last digits. `PVTV2_KERNELS=off` turns the compiled code off.
"""

import ctypes
import functools
import importlib.util
import logging
import os

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from model.layout import Layout

logger = logging.getLogger(__name__)

# Built beside the packages, whatever folder those are taken from.
_LIBRARY = "pvtv2_kernels"
_SYMBOL = "pvtv2_dwconv_gelu_2"
_LANES = 16  # channels that the compiled code does at once
_DTYPES = (torch.float32, torch.bfloat16)


def dwconv_gelu(x_TE: Tensor, weight_E133: Tensor, bias_E: Tensor, layout: Layout, *, relu: bool = False) -> Tensor:
    """GELU of the 3x3 convolution of each map with zeros around it, TE; rows without meaning are zero.

    Args:
        x_TE: the tokens of all maps; sums of half precision are taken in float32 where the code is compiled.
        layout: of these.
        relu: take only what is positive of `x_TE`. It may be changed.
    """
    library = _library()
    if library is not None and x_TE.device.type == "cpu" and x_TE.dtype in _DTYPES and x_TE.shape[1] % _LANES == 0:
        return _compiled(library, x_TE, weight_E133, bias_E, layout, relu)
    return _plain(x_TE, weight_E133, bias_E, layout, relu)


def is_compiled() -> bool:
    """True if there is compiled code to run."""
    return _library() is not None


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
    getattr(library, _SYMBOL)(
        *pointers, channels, len(sides) // 2, sides.data_ptr(), int(relu), int(x_TE.dtype == torch.bfloat16)
    )
    return y_TE


@functools.cache
def _library() -> ctypes.CDLL | None:
    if os.environ.get("PVTV2_KERNELS") == "off":
        return None
    found = importlib.util.find_spec(_LIBRARY)
    if found is None or found.origin is None:
        logger.info("kernels.missing: torch's own operations are used; install with a C compiler for faster ones")
        return None
    try:
        library = ctypes.CDLL(found.origin)
        function = getattr(library, _SYMBOL)
    except (OSError, AttributeError) as error:
        logger.warning("kernels.unusable file=%s error=%s", found.origin, error)
        return None
    function.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 2 + [ctypes.c_void_p] + [ctypes.c_int] * 2
    function.restype = None
    return library
