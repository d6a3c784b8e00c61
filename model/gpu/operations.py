"""The operations on maps of many sizes that a network on a GPU needs; `plain` and `kernels` implement them.

Letters in names of tensors: X pixels of all images, T tokens of all images, M keys, N images, C channels, P values of a
patch, E hidden channels of the MLP. `Maps` say which rows belong to each image. Matrices have as many rows as the
capacity; rows that belong to no image may hold anything, and no image's result depends on them.
"""

from typing import Protocol

import torch
from torch import Tensor

from model.gpu.tables import Maps

# The values of one row of an image's patch, 3 * 7 for the kernel of stage 1, are followed by zeros up to a multiple of
# this number: matrix products are faster if rows start at multiples of 16 bytes.
_ALIGN = 8


def patch_row(kernel: int) -> int:
    """Returns the number of values for each row of a patch of an image: 3 * kernel, and the zeros after them."""
    return -(-3 * kernel // _ALIGN) * _ALIGN


class Operations(Protocol):
    """The operations. Each takes and returns contiguous matrices on one device, unless its arguments say otherwise."""

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
        """Returns the values of the normalised images that the kernel of stage 1 covers at each token.

        Zeros lie around the images. Each row of a patch has its columns one after the other, each with R, G and B.

        Args:
            pixels_X3: uint8, RGB, image after image.
            scale_shift: Three scales and three shifts, one for each channel, float32: a value becomes
                value * scale + shift.
            images: Tables of the pixels.
            tokens: Tables of the tokens of stage 1.
            kernel: Side of the kernel.
            stride: Stride of the kernel.
            dtype: Type of the result.

        Returns:
            (T, kernel * patch_row(kernel)).
        """

    def patches(self, x_TC: Tensor, maps: Maps, to: Maps, *, kernel: int, stride: int, padding: int) -> Tensor:
        """Returns the values of each map that a kernel covers at each token of the map in `to`, with zeros around.

        Each row of a patch has its columns one after the other, each with all channels.

        Args:
            x_TC: Tokens.
            maps: Tables of the tokens.
            to: Tables of the result.
            kernel: Side of the kernel.
            stride: Stride of the kernel.
            padding: Tokens around the map that the kernel covers.

        Returns:
            (rows of `to`, kernel * kernel * C).
        """

    def dwconv_gelu(self, x_TE: Tensor, taps_9E: Tensor, bias_E: Tensor, maps: Maps, *, relu: bool) -> Tensor:
        """Returns the GELU of the 3x3 convolution of each channel, with zeros around each map, TE.

        Args:
            x_TE: Tokens.
            taps_9E: Weights of the convolution, float32, row by row.
            bias_E: Bias of the convolution, float32.
            maps: Tables of the tokens.
            relu: Apply a ReLU to `x_TE` first, which keeps NaN.
        """

    def norm(self, x_TC: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float, *, gelu: bool = False) -> Tensor:
        """Returns the norm of each row over its channels, TC.

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
        """Returns x + y, and the norm of each row of the sum. The arguments are those of `norm`."""

    def attention(self, q_TC: Tensor, k_MC: Tensor, v_MC: Tensor, maps: Maps, keys: Maps, *, num_heads: int) -> Tensor:
        """Returns the attention output TC of the queries over the keys of their own image.

        Args:
            q_TC: Queries. Here and in keys and values, rows may have a stride; channels are adjacent, head after head.
            k_MC: Keys.
            v_MC: Values.
            maps: Tables of the queries.
            keys: Tables of the keys and values.
            num_heads: Heads.
        """

    def pooled(self, x_TC: Tensor, maps: Maps, to: Maps) -> Tensor:
        """Returns each map averaged to 7x7, (rows of `to`, C), with the bins of torch's adaptive pooling."""

    def mean(self, x_TC: Tensor, maps: Maps) -> Tensor:
        """Returns the mean of each image's tokens, NC, float32."""
