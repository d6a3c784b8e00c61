"""PVTv2 over images of mixed sizes as one matrix of tokens, without padding; no image's output depends on the others.

Letters in names of tensors: T tokens of all images, C channels, P values of a patch, M keys, A heads, D channels of one
head, E hidden channels of the MLP; B H W images of one size, S side of a window.

Linear layers and norms process the whole matrix at once. Operations that see neighbours (patch embeddings, the
reduction of keys, the depthwise convolution) process one group of images of one size after another, on views of the
matrix. Attention is computed within each image.

Source: the network in `model/network/pvt_v2.py`, whose modules hold the weights. Differences: strided convolutions are
matrix products over patches that were laid out as rows.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from model.cpu.attention import attention
from model.cpu.layout import Group, Layout, next_layout, rounded_up
from model.cpu.linear import Linear
from model.cpu.mlp import MLP
from model.cpu.norm import LayerNorm
from model.network.config import KERNELS, POOLED_SIDE, STRIDES
from model.network.pvt_v2 import Attention, Block, PVTv2, Stage


class StageMap(NamedTuple):
    """The tokens TC of one stage, after the stage's norm, and the layout of these tokens."""

    tokens: Tensor
    layout: Layout

    def groups(self) -> list[Tensor]:
        """Returns one tensor BHWC for each group of images, with the group's maps, as a view of the tokens."""
        return [_view(self.tokens, group) for group in self.layout.groups]


class RaggedPVTv2:
    """A network that is prepared to run packs. Weights that need another layout are copied."""

    def __init__(self, model: PVTv2) -> None:
        """Prepares the weights that the model has now."""
        self._stages = [_Stage(cast(Stage, stage), index) for index, stage in enumerate(model.stages)]

    def __call__(self, groups_BHWC: Sequence[Tensor]) -> list[StageMap]:
        """Returns the maps of all images after each of the four stages.

        Args:
            groups_BHWC: Normalised images of the weights' dtype, one tensor for each size of images.
        """
        maps: list[StageMap] = []
        for stage in self._stages:
            found = stage(groups_BHWC)
            maps.append(found)
            groups_BHWC = found.groups()
        return maps


class _Stage:
    """A stage: a patch embedding, some blocks, a norm."""

    def __init__(self, stage: Stage, index: int) -> None:
        self._index = index
        weight_CP = stage.embed.conv.weight.permute(0, 2, 3, 1).flatten(1)
        self._embed = Linear(weight_CP, stage.embed.conv.bias, may_widen=True, in_parts=index > 1)
        self._embed_norm, self._norm = LayerNorm(stage.embed.norm), LayerNorm(stage.norm)
        self._blocks = [_Block(cast(Block, block)) for block in stage.blocks]

    def __call__(self, groups_BHWC: Sequence[Tensor]) -> StageMap:
        kernel, stride = KERNELS[self._index], STRIDES[self._index]
        before = [Group(*group_BHWC.shape[:3]) for group_BHWC in groups_BHWC]
        layout = next_layout(before, stride)
        x_TC = self._embed_norm(self._embed(_patches(groups_BHWC, layout, kernel, stride, self._embed.inputs)))
        for block in self._blocks:
            x_TC = block(x_TC, layout)
        return StageMap(self._norm(x_TC), layout)


class _Block:
    """A block: attention and MLP, each after a norm and with a residual connection."""

    def __init__(self, block: Block) -> None:
        self._norm, self._attention = LayerNorm(block.norm1), _Attention(block.attention)
        mlp = block.mlp
        self._mlp = MLP(block.norm2, mlp.fc1, mlp.dwconv, mlp.fc2, relu=mlp.linear)

    def __call__(self, x_TC: Tensor, layout: Layout) -> Tensor:
        return self._mlp(self._attention(self._norm(x_TC), layout, x_TC), layout)


class _Attention:
    """Attention from every token to the keys of its own image."""

    def __init__(self, attention: Attention) -> None:
        self._num_heads, self._is_linear, self._reduces = attention.num_heads, attention.linear, attention.reduces
        self._q, self._proj = _linear(attention.q), _linear(attention.proj)
        self._kv = Linear(attention.kv.weight, attention.kv.bias, in_parts=True)
        self._window = 1
        if attention.reduces:
            self._window = attention.reduce.stride[0]
            weight_CP = attention.reduce.weight.permute(0, 2, 3, 1).flatten(1)
            self._reduce = Linear(weight_CP, attention.reduce.bias, in_parts=True)
            self._reduce_norm = LayerNorm(attention.reduce_norm)

    def __call__(self, x_TC: Tensor, layout: Layout, residual_TC: Tensor) -> Tensor:
        q_TC = self._q(x_TC)
        keys = self._keys(layout)
        kv_MC = self._kv(self._reduced(x_TC, layout, keys) if self._reduces else x_TC)
        y_TC = attention(q_TC, kv_MC, layout, keys, self._num_heads)
        return self._proj(y_TC, residual_TC)

    def _keys(self, layout: Layout) -> Layout:
        """Returns the layout of the keys."""
        groups: list[Group] = []
        start = 0
        for group in layout.groups:
            side = (group.height // self._window, group.width // self._window)
            height, width = (POOLED_SIDE, POOLED_SIDE) if self._is_linear else side
            groups.append(Group(group.count, height, width, start))
            start = groups[-1].stop
        return Layout(tuple(groups), rounded_up(start))

    def _reduced(self, x_TC: Tensor, layout: Layout, keys: Layout) -> Tensor:
        """Returns the reduced tokens MC, from which keys and values are made."""
        channels, side = x_TC.shape[1], self._window
        windows_MC = x_TC.new_empty(keys.num_rows, side * side * channels)
        windows_MC[keys.num_tokens :] = 0
        for group, of_group in zip(layout.groups, keys.groups, strict=True):
            x_BHWC = _view(x_TC, group)
            if self._is_linear:
                x_BHWC = adaptive_avg_pool2d(x_BHWC.permute(0, 3, 1, 2), POOLED_SIDE).permute(0, 2, 3, 1)
            height, width = of_group.height, of_group.width
            x_BHWC = x_BHWC[:, : height * side, : width * side]
            x_BHWSSC = x_BHWC.unflatten(2, (width, side)).unflatten(1, (height, side)).transpose(2, 3)
            rows_MC = windows_MC[of_group.start : of_group.stop]
            rows_MC.view(x_BHWSSC.shape).copy_(x_BHWSSC)
        x_MC = self._reduce_norm(self._reduce(windows_MC))
        return torch.ops.aten.gelu_(x_MC) if self._is_linear else x_MC


def _linear(layer: torch.nn.Linear) -> Linear:
    return Linear(layer.weight, layer.bias)


def _view(x_TC: Tensor, group: Group) -> Tensor:
    """Returns the maps BHWC of a group's images, without a copy."""
    return x_TC[group.start : group.stop].view(group.count, group.height, group.width, -1)


def _patches(groups_BHWC: Sequence[Tensor], layout: Layout, kernel: int, stride: int, num_columns: int) -> Tensor:
    """Returns the patches TP: for each token, the values that the patch embedding's kernel covers.

    Zeros surround each map.

    Args:
        groups_BHWC: Maps of each group of images.
        layout: Layout of the tokens after the patch embedding.
        kernel: Side of the kernel.
        stride: Stride of the kernel.
        num_columns: Columns of the result; columns past the kernel's values are zero.
    """
    channels, half = groups_BHWC[0].shape[3], kernel // 2
    num_values = kernel * kernel * channels
    rows_TP = groups_BHWC[0].new_empty(layout.num_rows, num_columns)
    rows_TP[layout.num_tokens :] = 0
    rows_TP[:, num_values:] = 0
    for x_BHWC, group in zip(groups_BHWC, layout.groups, strict=True):
        count, height, width = x_BHWC.shape[:3]
        # The last patch may end before the last rows and columns of the image.
        framed = ((group.height - 1) * stride + kernel, (group.width - 1) * stride + kernel)
        framed_BHWC = x_BHWC.new_zeros(count, *framed, channels)
        height, width = min(height, framed[0] - half), min(width, framed[1] - half)
        framed_BHWC[:, half : half + height, half : half + width] = x_BHWC[:, :height, :width]
        by_image, by_row, by_column, _ = framed_BHWC.stride()
        shape = (count, group.height, group.width, kernel, kernel * channels)
        patches = framed_BHWC.as_strided(shape, (by_image, by_row * stride, by_column * stride, by_row, 1))
        rows_TP[group.start : group.stop, :num_values].view(shape).copy_(patches)
    return rows_TP
