"""Linear layers on one large matrix of tokens: on a CPU by oneDNN, with the weights laid out beforehand; else by torch.

torch's own linear of float32 goes to MKL, which leaves a fifth of some processors' speed unused. oneDNN is reached by
the operations that torch's compiler puts in place of linears; a torch without them uses its own. oneDNN adds up a
layer's products one after the other, so that its long sums round twice as badly as MKL's: those stay with torch. In
half precision sums are taken in float32, whose rounding is not what is seen, and all go to oneDNN.
"""

import functools

import torch
from torch import Tensor
from torch.nn.functional import linear

# Inputs of a layer up to which oneDNN's sums are as good as the reference's; beyond, differences in the logits of deep
# networks double (measured on B3 and B5).
_MAX_INPUTS = 320


class Linear:
    """x W^T + b, and a residual added on the way."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        self._weight, self._bias = weight_OI, bias_O
        self._packed: Tensor | None = None
        is_short = weight_OI.shape[1] <= _MAX_INPUTS or weight_OI.dtype != torch.float32
        if is_short and weight_OI.device.type == "cpu" and _has_onednn(weight_OI.dtype):
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight_OI.contiguous(), None)

    def __call__(self, x_TI: Tensor, residual_TO: Tensor | None = None) -> Tensor:
        """TO; the residual stays as it is."""
        if self._packed is None:
            y_TO = linear(x_TI, self._weight, self._bias)
            return y_TO if residual_TO is None else y_TO.add_(residual_TO)
        if residual_TO is None:
            return torch.ops.mkldnn._linear_pointwise(x_TI, self._packed, self._bias, "none", [], "")
        return torch.ops.mkldnn._linear_pointwise.binary(x_TI, residual_TO, self._packed, self._bias, "add")


@functools.cache
def _has_onednn(dtype: torch.dtype) -> bool:
    """True if this torch has the operations, for this type on this processor, and they do what is expected of them."""
    if not torch.backends.mkldnn.is_available():
        return False
    x, weight, bias = (tensor.to(dtype) for tensor in (torch.ones(2, 3), torch.arange(12.0).view(4, 3), torch.ones(4)))
    expected = linear(x, weight, bias)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        y = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
        z = torch.ops.mkldnn._linear_pointwise.binary(x, y, packed, bias, "add")
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.allclose(y, expected) and torch.allclose(z, 2 * expected)
