"""The operations on maps of many sizes that a network on a GPU needs; `plain` and `kernels` implement them.

Letters in names of tensors: X pixels of all images, T tokens of all images, M keys, N images, C channels, P values of a
patch, E hidden channels of the MLP. `Maps` say which rows belong to each image. Matrices have as many rows as the
capacity; rows that belong to no image may hold anything, and no image's result depends on them.
"""

from typing import Protocol

import torch
from torch import Tensor

from model.gpu.tables import Maps

# The values of one row of an image's patch (3 * 7 for the kernel of stage 1) are filled up with zeros to a multiple of
# this number: matrix products are faster if rows start at multiples of 16 bytes.
_ALIGN = 8


def patch_row(kernel: int) -> int:
    """Returns the number of values in one row of a patch of an image: 3 * kernel, and the zeros that follow."""
    return -(-3 * kernel // _ALIGN) * _ALIGN


class Operations(Protocol):
    """The operations. Matrices are contiguous and on one device, unless the note of an argument says otherwise."""

    def pixel_patches(
        self,
        pixels_X3: Tensor,
        scale_shift: Tensor,
        images: Maps,
        tokens: Maps,
        *,
        kernel: int,
        stride: int,
        dtype: torch.dtype,
    ) -> Tensor:
        """Returns the patches of the normalised images: for each token, the pixels that the kernel of stage 1 covers.

        Zeros surround each image. A patch is laid out row by row, a row column by column; each column has R, G and B.

        Args:
            pixels_X3: Pixels of all images, one image after the other: RGB, uint8.
            scale_shift: Three scales, then three shifts, one for each channel, float32: a value becomes
                value * scale + shift.
            images: Tables of the pixels.
            tokens: Tables of the tokens of stage 1.
            kernel: Side of the kernel.
            stride: Stride of the kernel.
            dtype: Type of the result.

        Returns:
            Patches (T, kernel * patch_row(kernel)).
        """

    def patches(self, x_TC: Tensor, maps: Maps, to: Maps, *, kernel: int, stride: int, padding: int) -> Tensor:
        """Returns the patches of the maps: for each token of the result, the tokens of the image that a kernel covers.

        Zeros surround each map. A patch is laid out row by row, a row column by column; each column has all channels.

        Args:
            x_TC: Tokens.
            maps: Tables of the tokens.
            to: Tables of the tokens of the result.
            kernel: Side of the kernel.
            stride: Stride of the kernel.
            padding: Width, in tokens, of the border of zeros around each map.

        Returns:
            Patches (rows of `to`, kernel * kernel * C).
        """

    def dwconv_gelu(self, x_TE: Tensor, taps_9E: Tensor, bias_E: Tensor, maps: Maps, *, relu: bool) -> Tensor:
        """Returns the tokens TE after a depthwise 3x3 convolution of each map and a GELU. Zeros surround each map.

        Args:
            x_TE: Tokens.
            taps_9E: Weights of the convolution, float32, row by row.
            bias_E: Bias of the convolution, float32.
            maps: Tables of the tokens.
            relu: Apply a ReLU to `x_TE` first; NaN stays NaN.
        """

    def norm(self, x_TC: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float, *, gelu: bool = False) -> Tensor:
        """Returns the tokens TC after a layer norm over the channels.

        Args:
            x_TC: Tokens.
            weight_C: Weight of the norm, float32.
            bias_C: Bias of the norm, float32.
            eps: Epsilon of the norm.
            gelu: Apply a GELU to the result.
        """

    def add_norm(
        self, x_TC: Tensor, y_TC: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """Returns the sum x + y, and this sum after a layer norm, both TC. The other arguments are as for `norm`."""

    def attention(self, q_TC: Tensor, k_MC: Tensor, v_MC: Tensor, maps: Maps, keys: Maps, *, num_heads: int) -> Tensor:
        """Returns the attention output TC of each query over the keys of its own image.

        Args:
            q_TC: Queries. Rows of queries, keys and values may have a stride; channels are adjacent, head after head.
            k_MC: Keys.
            v_MC: Values.
            maps: Tables of the queries.
            keys: Tables of the keys and values.
            num_heads: Number of heads.
        """

    def pooled(self, x_TC: Tensor, maps: Maps, to: Maps) -> Tensor:
        """Returns each map averaged to 7x7, (rows of `to`, C), with the bins of torch's adaptive pooling."""

    def mean(self, x_TC: Tensor, maps: Maps) -> Tensor:
        """Returns the mean of each image's tokens, NC, float32."""
