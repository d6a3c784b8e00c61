"""The operations on ragged maps, as the network on a GPU uses them; `plain` and `gpu` implement them.

Letters in names of tensors: X pixels of all images, T tokens of all images, M keys, N images, C channels, P values of a
patch, E hidden channels of the MLP. `Maps` tell where each image's rows are. Matrices have as many rows as a capacity;
rows that belong to no image may hold anything and are never read for one that does.
"""

from typing import Protocol

import torch
from torch import Tensor

from model.gpu.tables import Maps

# The bytes that one row of an image's patch has, 3 * 7 for the kernel of stage 1, are followed by zeros up to a
# multiple of this: matrix products are quick where rows start at multiples of 16 bytes.
_ALIGN = 8


def patch_row(kernel: int) -> int:
    """Values for each row of a patch of an image: 3 * kernel, then zeros."""
    return -(-3 * kernel // _ALIGN) * _ALIGN


class Operations(Protocol):
    """Each takes and gives contiguous matrices on one device, unless it says otherwise."""

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
        """What the kernel of stage 1 sees of the normalised images at each token, with zeros around them.

        Args:
            pixels_X3: uint8, RGB, image after image.
            scale_shift: six float32: a value becomes value * scale + shift, by channel.

        Returns:
            (T, kernel * patch_row(kernel)) of the dtype: for each row of the patch, column by column, R G B.
        """

    def patches(self, x_TC: Tensor, maps: Maps, to: Maps, *, kernel: int, stride: int, padding: int) -> Tensor:
        """What a kernel sees of the map at each place of the map `to`, with zeros around the map.

        Returns:
            (rows of `to`, kernel * kernel * C): for each row of the patch, column by column, all channels.
        """

    def dwconv_gelu(self, x_TE: Tensor, taps_9E: Tensor, bias_E: Tensor, maps: Maps, *, relu: bool) -> Tensor:
        """GELU of the 3x3 convolution of each channel, with zeros around each map, TE.

        Args:
            taps_9E: float32, row by row.
            bias_E: float32.
            relu: take only what is positive of `x_TE`; what is no number stays none.
        """

    def norm(self, x_TC: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float, *, gelu: bool = False) -> Tensor:
        """The norm of each row over its channels, TC; its GELU if asked for.

        Args:
            weight_C: float32.
            bias_C: float32.
        """

    def add_norm(
        self, x_TC: Tensor, y_TC: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """x + y, and the norm of each row of it."""

    def attention(self, q_TC: Tensor, k_MC: Tensor, v_MC: Tensor, maps: Maps, keys: Maps, *, num_heads: int) -> Tensor:
        """What the queries gather from the values of their own image's keys, TC.

        Args:
            q_TC, k_MC, v_MC: rows may have a stride; channels lie next to one another, head after head.
        """

    def pooled(self, x_TC: Tensor, maps: Maps, to: Maps) -> Tensor:
        """Each map averaged to 7x7, (rows of `to`, C); bins are those of torch's adaptive pooling."""

    def mean(self, x_TC: Tensor, maps: Maps) -> Tensor:
        """The mean of each image's tokens, NC, float32."""
