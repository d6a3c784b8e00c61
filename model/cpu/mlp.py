"""The MLP of a block, with the norm before it and the residual connection, over maps of many sizes, end to end.

For bfloat16 on a processor that multiplies tiles, one compiled function runs the whole MLP piece by piece, so that the
hidden channels stay in the cache and are never written to memory. Otherwise the MLP runs operation by operation.
"""

import ctypes

import torch
from torch import Tensor, nn

from model.cpu.compiled import LANES, tiled
from model.cpu.dwconv import dwconv_gelu
from model.cpu.layout import Layout
from model.cpu.linear import Linear
from model.cpu.norm import LayerNorm

_PIECE_BYTES = 2**18  # bytes of a piece's hidden channels before the convolution; its result takes as many bytes again


class MLP:
    """The MLP of a block with its norm and its residual connection: x + MLP(norm(x))."""

    def __init__(
        self, norm: nn.LayerNorm, first: nn.Linear, conv: nn.Conv2d, second: nn.Linear, *, relu: bool = False
    ) -> None:
        """Prepares the weights that the modules have now.

        Args:
            norm: Norm over the channels.
            first: Linear layer from channels to hidden channels.
            conv: Depthwise 3x3 convolution of the hidden channels; a GELU follows it.
            second: Linear layer from hidden channels to channels.
            relu: Apply a ReLU after `first`.
        """
        assert conv.bias is not None
        self._relu, self._eps = relu, norm.eps
        self._norm = LayerNorm(norm)
        self._first, self._second = Linear(first.weight, first.bias), Linear(second.weight, second.bias)
        self._taps_E133, self._bias_E = conv.weight, conv.bias
        self._channels, self._hidden = first.in_features, first.out_features
        self._library = tiled(first.weight.dtype, first.weight.device)
        if self._channels % (2 * LANES) or self._hidden % (2 * LANES):
            self._library = None
        if self._library is not None:
            taps_9E = conv.weight.view(self._hidden, 9).t().float().contiguous()
            first_tiles, second_tiles = self._first.tiles, self._second.tiles
            self._weights = (
                *self._norm.weights,
                *(first_tiles.weight, first_tiles.bias_O, taps_9E, conv.bias.float().contiguous()),
                *(second_tiles.weight, second_tiles.bias_O),
            )

    def __call__(self, x_TC: Tensor, layout: Layout) -> Tensor:
        """Returns the tokens TC after the MLP.

        Args:
            x_TC: Tokens of all maps.
            layout: Layout of the tokens.
        """
        if self._library is not None:
            return self._compiled(self._library, x_TC.contiguous(), layout)
        x_TE = self._first(self._norm(x_TC))
        x_TE = dwconv_gelu(x_TE, self._taps_E133, self._bias_E, layout, relu=self._relu)
        return self._second(x_TE, x_TC)

    def _compiled(self, library: ctypes.CDLL, x_TC: Tensor, layout: Layout) -> Tensor:
        channels, hidden = self._channels, self._hidden
        piece = _PIECE_BYTES // (2 * hidden)
        sides = torch.tensor(layout.sides(), dtype=torch.int64)
        y_TC = torch.empty_like(x_TC)
        y_TC[layout.num_tokens :] = 0
        tokens = piece + max(2 * group.width + (group.width > piece) * group.width for group in layout.groups)
        space = torch.empty(2 * tokens * (channels + 2 * hidden), dtype=torch.uint8)
        weights = (ctypes.c_void_p * len(self._weights))(*(tensor.data_ptr() for tensor in self._weights))
        library.pvtv2_mlp_1(
            x_TC.data_ptr(),
            weights,
            y_TC.data_ptr(),
            space.data_ptr(),
            channels,
            hidden,
            len(sides) // 2,
            sides.data_ptr(),
            piece,
            self._eps,
            int(self._relu),
        )
        return y_TC
