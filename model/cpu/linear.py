"""Linear layers on one large matrix of tokens: on a CPU in compiled code or by oneDNN, else by torch.

- bfloat16 on a processor that multiplies tiles: compiled code. oneDNN would prepare some hundred kilobytes for each
  shape of matrix, and packs of mixed sizes have many shapes.
- Other layers on a CPU: oneDNN, with weights that are laid out beforehand. torch's own linear sends float32 to MKL,
  which leaves a fifth of some processors' speed unused. oneDNN is called through the operations with which torch's
  compiler replaces linear layers; if torch lacks these operations, torch's own linear is used.
- float32 with long sums: torch. oneDNN adds the products of a sum one after the other, which rounds long sums twice as
  badly as MKL does.
- float32 with `in_parts` (reduction of windows, keys and values, patch embeddings of the last two stages): torch, in
  sums of 64 products each. These layers have few rows, and every logit depends on these layers.

Half precision is summed in float32, where the order of a sum hardly matters.
"""

import ctypes
import functools

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from model.cpu.compiled import tiled

# Largest number of inputs of a layer for which oneDNN's sums are as exact as torch's sums. With more inputs, the errors
# of the logits of deep networks double (measured on B3 and B5).
_MAX_INPUTS = 320
_PART = 64  # inputs whose products are summed together in a layer with `in_parts`
_TILE = 32  # inputs and outputs that the compiled code processes at once


class Linear:
    """A linear layer, x W^T + b, which can also add a residual.

    Attributes:
        inputs: Number of columns that the input must have. Columns past the last column of the weights must be zero.
    """

    def __init__(
        self, weight_OI: Tensor, bias_O: Tensor | None, *, may_widen: bool = False, in_parts: bool = False
    ) -> None:
        """Prepares the layer from its present weights; a layer whose weights have changed must be prepared again.

        Args:
            weight_OI: Weights.
            bias_O: Bias, if the layer has one.
            may_widen: Whether the layer may ask for inputs with more columns than the weights have. The attribute
                `inputs` says how many columns an input must have.
            in_parts: Whether long sums of float32 are taken in parts of 64 products.
        """
        self._weight, self._bias = weight_OI, bias_O
        self._parts_SPO: Tensor | None = None
        if (
            in_parts
            and weight_OI.dtype == torch.float32
            and weight_OI.shape[1] % _PART == 0
            and weight_OI.shape[1] > _PART
        ):
            self._parts_SPO = weight_OI.unflatten(1, (-1, _PART)).permute(1, 2, 0).contiguous()
        self._packed: Tensor | None = None
        fits = weight_OI.shape[0] % _TILE == 0 and (may_widen or weight_OI.shape[1] % _TILE == 0)
        self._library = tiled(weight_OI.dtype, weight_OI.device) if fits else None
        self.inputs = weight_OI.shape[1]
        if self._library is not None:
            self.tiles = Tiles(weight_OI, bias_O)
            self.inputs = self.tiles.inputs
            return
        is_short = weight_OI.shape[1] <= _MAX_INPUTS or weight_OI.dtype != torch.float32
        if self._parts_SPO is None and is_short and weight_OI.device.type == "cpu" and _has_onednn(weight_OI.dtype):
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight_OI.contiguous(), None)

    def __call__(self, x_TI: Tensor, residual_TO: Tensor | None = None) -> Tensor:
        """Returns the outputs TO, plus the residual if one is given. The residual itself is not changed."""
        if self._library is not None:
            return self.tiles(self._library, x_TI, residual_TO)
        if self._packed is None:
            y_TO = linear(x_TI, self._weight, self._bias) if self._parts_SPO is None else self._sum_of_parts(x_TI)
            return y_TO if residual_TO is None else y_TO.add_(residual_TO)
        if residual_TO is None:
            return torch.ops.mkldnn._linear_pointwise(x_TI, self._packed, self._bias, "none", [], "")
        return torch.ops.mkldnn._linear_pointwise.binary(x_TI, residual_TO, self._packed, self._bias, "add")

    def _sum_of_parts(self, x_TI: Tensor) -> Tensor:
        assert self._parts_SPO is not None
        y_TO = torch.bmm(x_TI.unflatten(1, (-1, _PART)).transpose(0, 1), self._parts_SPO).sum(dim=0)
        return y_TO if self._bias is None else y_TO.add_(self._bias)


class Tiles:
    """Weights of bfloat16 as tiles of 32 inputs by 16 outputs, and their bias.

    Attributes:
        inputs: Inputs of the weights, rounded up to whole tiles.
        weight: Tiles, (outputs / 32, inputs / 32, 2, 16, 16, 2). Row r of a tile has the weights of the inputs 2r and
            2r + 1 for each output.
        bias_O: Bias, in float32; zeros if the layer has none.
    """

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        num_outputs, num_inputs = weight_OI.shape
        self.inputs = -(-num_inputs // _TILE) * _TILE
        whole_OI = pad(weight_OI, (0, self.inputs - num_inputs))
        tiles = whole_OI.view(num_outputs // _TILE, 2, 16, self.inputs // _TILE, 16, 2)
        self.weight = tiles.permute(0, 3, 1, 4, 2, 5).contiguous()
        self.bias_O = torch.zeros(num_outputs) if bias_O is None else bias_O.float().contiguous()

    def __call__(self, library: ctypes.CDLL, x_TI: Tensor, residual_TO: Tensor | None) -> Tensor:
        """Returns the outputs TO, plus the residual if one is given. The residual itself is not changed."""
        x_TI = x_TI.contiguous()
        num_rows, num_outputs = len(x_TI), len(self.bias_O)
        y_TO = x_TI.new_empty(num_rows, num_outputs)
        residual = None if residual_TO is None else residual_TO.contiguous()
        library.pvtv2_linear_1(
            x_TI.data_ptr(),
            self.weight.data_ptr(),
            self.bias_O.data_ptr(),
            None if residual is None else residual.data_ptr(),
            y_TO.data_ptr(),
            num_rows,
            self.inputs,
            num_outputs,
        )
        return y_TO


@functools.cache
def _has_onednn(dtype: torch.dtype) -> bool:
    """Returns whether torch has oneDNN's operations for a type on this processor, and the operations are correct."""
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
