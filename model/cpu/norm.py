"""The norm over the channels of each token: in compiled code if possible, else in torch."""

import torch
from torch import Tensor, nn

from model.cpu.compiled import compiled


class LayerNorm:
    """A layer norm with the weights of a torch module; the sums are taken in float32.

    Attributes:
        weights: The scale and the bias, in float32.
    """

    def __init__(self, norm: nn.LayerNorm) -> None:
        """Prepares the weights that the module has now."""
        self._norm, self._eps = norm, norm.eps
        self.weights = norm.weight.float().contiguous(), norm.bias.float().contiguous()

    def __call__(self, x_TC: Tensor) -> Tensor:
        """Returns the normed tokens TC, of the dtype of the input."""
        library = compiled(x_TC)
        if library is None:
            return self._norm(x_TC)
        x_TC = x_TC.contiguous()
        y_TC = torch.empty_like(x_TC)
        pointers = (tensor.data_ptr() for tensor in (x_TC, *self.weights, y_TC))
        library.pvtv2_layer_norm_1(*pointers, *x_TC.shape, self._eps, int(x_TC.dtype == torch.bfloat16))
        return y_TC
