"""PVTv2 over a pack that tables describe: the same operations of fixed shapes for images of any sizes.

The letters in names of tensors are those of `model/gpu/operations.py`.

Source: the network in `model/network/pvt_v2.py`, whose weights are laid out for the operations. Differences: strided
convolutions are matrix products over patches that were laid out as rows; adding a residual and the norm after it are
one operation; where the tokens themselves are the keys, one linear layer gives queries, keys and values; embedding and
logits are float32, whatever the network's dtype.
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from model.gpu.operations import Operations, patch_row
from model.gpu.tables import Maps, Tables
from model.network.config import KERNELS, RGB, STRIDES
from model.network.pvt_v2 import Attention, Block, PVTv2, Stage


class Outputs(NamedTuple):
    """The outputs of a whole pack. Rows that belong to no image may hold anything.

    Attributes:
        maps: Map TC of each stage after its norm, of the network's dtype.
        embedding: Mean of the last map of each image, NC, float32.
        logits: Scores of the classes, NK, float32; None if the network has no head.
    """

    maps: tuple[Tensor, ...]
    embedding: Tensor
    logits: Tensor | None


class TabledPVTv2:
    """A network that is prepared to run packs whose images tables describe."""

    def __init__(self, model: PVTv2, operations: Operations, *, mean: RGB, std: RGB) -> None:
        """Prepares the weights that the model has now, on their device and of their dtype."""
        parameter = next(model.parameters())
        self._operations = operations
        self._dtype = parameter.dtype
        scale_shift = [*(1 / (255 * s) for s in std), *(-m / s for m, s in zip(mean, std, strict=True))]
        self._scale_shift = torch.tensor(scale_shift, dtype=torch.float32, device=parameter.device)
        self._stages = [_Stage(cast(Stage, stage), index, operations) for index, stage in enumerate(model.stages)]
        self._head = None if model.head is None else (model.head.weight.float(), model.head.bias.float())

    def __call__(self, pixels_X3: Tensor, tables: Tables) -> Outputs:
        """Returns the outputs of the network for a pack.

        Args:
            pixels_X3: Pixels of all images, one image after the other: RGB, uint8, `tables.pixels.num_rows` rows.
            tables: Tables of the same images.
        """
        rows_TP = self._operations.pixel_patches(
            pixels_X3,
            self._scale_shift,
            tables.pixels,
            tables.tokens[0],
            kernel=KERNELS[0],
            stride=STRIDES[0],
            dtype=self._dtype,
        )
        maps: list[Tensor] = []
        for index, stage in enumerate(self._stages):
            if index:
                rows_TP = self._operations.patches(
                    maps[-1],
                    tables.tokens[index - 1],
                    tables.tokens[index],
                    kernel=KERNELS[index],
                    stride=STRIDES[index],
                    padding=KERNELS[index] // 2,
                )
            maps.append(stage(rows_TP, tables.tokens[index], tables.keys[index]))
        embedding_NC = self._operations.mean(maps[-1], tables.tokens[-1])
        logits_NK = None if self._head is None else linear(embedding_NC, *self._head)
        return Outputs(tuple(maps), embedding_NC, logits_NK)


class _Norm(NamedTuple):
    """The weight and bias of a norm, in float32, and its epsilon, in the order in which operations take them."""

    weight: Tensor
    bias: Tensor
    eps: float


class _Stage:
    """A stage: a patch embedding, some blocks, a norm."""

    def __init__(self, stage: Stage, index: int, operations: Operations) -> None:
        self._operations = operations
        weight_OKKI = stage.embed.conv.weight.permute(0, 2, 3, 1)
        if index == 0:
            weight_OKR = weight_OKKI.flatten(2)
            weight_OKKI = pad(weight_OKR, (0, patch_row(KERNELS[0]) - weight_OKR.shape[2]))
        self._embed = (weight_OKKI.flatten(1).contiguous(), stage.embed.conv.bias)
        self._embed_norm, self._norm = _norm(stage.embed.norm), _norm(stage.norm)
        self._blocks = [_Block(cast(Block, block), operations) for block in stage.blocks]

    def __call__(self, rows_TP: Tensor, maps: Maps, keys: Maps) -> Tensor:
        """Returns the stage's output after its norm: T tokens of C channels."""
        x_TC = self._operations.norm(linear(rows_TP, *self._embed), *self._embed_norm)
        normed_TC = self._operations.norm(x_TC, *self._blocks[0].norm1)
        for block, following in zip(self._blocks, [*(b.norm1 for b in self._blocks[1:]), self._norm], strict=True):
            x_TC, normed_TC = block(x_TC, normed_TC, maps, keys, following)
        return normed_TC


class _Block:
    """A block: attention and MLP, each with a residual connection. The operation before the block applies `norm1`."""

    def __init__(self, block: Block, operations: Operations) -> None:
        self._operations = operations
        self.norm1, self._norm2 = _norm(block.norm1), _norm(block.norm2)
        self._attention = _Attention(block.attention, operations)
        mlp = block.mlp
        self._fc1, self._fc2 = _linear(mlp.fc1), _linear(mlp.fc2)
        self._taps = mlp.dwconv.weight.flatten(1).t().float().contiguous()
        self._bias = cast(Tensor, mlp.dwconv.bias).float()
        self._relu = mlp.linear

    def __call__(
        self, x_TC: Tensor, normed_TC: Tensor, maps: Maps, keys: Maps, following: _Norm
    ) -> tuple[Tensor, Tensor]:
        """Returns the tokens TC after the block, and the same tokens after the norm that follows.

        Args:
            x_TC: Tokens before the block.
            normed_TC: `x_TC` after `norm1`.
            maps: Tables of the tokens.
            keys: Tables of the keys.
            following: Norm after the block.
        """
        y_TC = self._attention(normed_TC, maps, keys)
        x_TC, normed_TC = self._operations.add_norm(x_TC, y_TC, *self._norm2)
        x_TE = linear(normed_TC, *self._fc1)
        x_TE = self._operations.dwconv_gelu(x_TE, self._taps, self._bias, maps, relu=self._relu)
        return self._operations.add_norm(x_TC, linear(x_TE, *self._fc2), *following)


class _Attention:
    """Attention from every token to the keys of its own image."""

    def __init__(self, attention: Attention, operations: Operations) -> None:
        self._operations = operations
        self._num_heads, self._is_linear, self._reduces = attention.num_heads, attention.linear, attention.reduces
        self._proj = _linear(attention.proj)
        self._q, self._kv = _linear(attention.q), _linear(attention.kv)
        if attention.reduces:
            self._window = attention.reduce.stride[0]
            weight_OKKI = attention.reduce.weight.permute(0, 2, 3, 1)
            self._reduce = (weight_OKKI.flatten(1).contiguous(), attention.reduce.bias)
            self._reduce_norm = _norm(attention.reduce_norm)
        else:
            (q_weight, q_bias), (kv_weight, kv_bias) = self._q, self._kv
            bias = None if q_bias is None or kv_bias is None else torch.cat((q_bias, kv_bias))
            self._qkv = (torch.cat((q_weight, kv_weight)), bias)

    def __call__(self, x_TC: Tensor, maps: Maps, keys: Maps) -> Tensor:
        """Returns the attention output TC of each token, projected."""
        channels = x_TC.shape[1]
        if self._reduces:
            q_TC = linear(x_TC, *self._q)
            k_MC, v_MC = linear(self._reduced(x_TC, maps, keys), *self._kv).split(channels, dim=1)
        else:
            q_TC, k_MC, v_MC = linear(x_TC, *self._qkv).split(channels, dim=1)
        y_TC = self._operations.attention(q_TC, k_MC, v_MC, maps, keys, num_heads=self._num_heads)
        return linear(y_TC, *self._proj)

    def _reduced(self, x_TC: Tensor, maps: Maps, keys: Maps) -> Tensor:
        """Returns the reduced tokens MC, from which keys and values are made."""
        if self._is_linear:
            rows_MP = self._operations.pooled(x_TC, maps, keys)
        else:
            side = self._window
            rows_MP = self._operations.patches(x_TC, maps, keys, kernel=side, stride=side, padding=0)
        return self._operations.norm(linear(rows_MP, *self._reduce), *self._reduce_norm, gelu=self._is_linear)


def _linear(layer: torch.nn.Linear) -> tuple[Tensor, Tensor | None]:
    return layer.weight, layer.bias


def _norm(layer: torch.nn.LayerNorm) -> _Norm:
    return _Norm(layer.weight.float(), layer.bias.float(), layer.eps)
