"""The network PVTv2, for inference only, from its smallest part to the whole.

Letters in names of tensors: B images, H W sides in pixels or tokens, C channels, N = H*W tokens, M keys, A heads,
D channels of one head, E hidden channels of the MLP, K classes.

Tokens and maps share memory. A map BCHW is kept channels-last, so that in memory the map is B, H, W, C: the same as the
tokens BNC that linear layers and norms take. `to_map` and `to_tokens` only rename the axes. Maps are copied in two
places, for accuracy: before the patch embeddings of stages 2 to 4, and in the reduction of keys. oneDNN's channels-last
convolution sums all products of an output one after the other, which rounds two to four times worse than its own NCHW
convolution or a matrix product, and is no faster. The depthwise convolution sums only nine products and needs no copy.

Source: Wang et al. 2022, "PVT v2: Improved Baselines with Pyramid Vision Transformer", sections 3.1 to 3.3.
Differences: keys and values come from one linear layer; the convolution that reduces keys is a matrix product over
windows; attention is torch's fused operation; dropout and stochastic depth are left out.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, linear, scaled_dot_product_attention

from model.network.config import KERNELS, NUM_STAGES, POOLED_SIDE, STRIDES, PVTv2Config


def to_map(x_BNC: Tensor, height: int, width: int) -> Tensor:
    """Returns the tokens as a channels-last map BCHW, without a copy."""
    return x_BNC.unflatten(1, (height, width)).permute(0, 3, 1, 2)


def to_tokens(x_BCHW: Tensor) -> Tensor:
    """Returns the map as tokens BNC, row by row; without a copy if the map is channels-last."""
    return x_BCHW.permute(0, 2, 3, 1).flatten(1, 2)


def to_windows(x_BCHW: Tensor, side: int) -> Tensor:
    """Returns the tokens of each whole window of side x side as one row: (B, windows, side * side * C).

    Rows and columns past the last whole window are left out. The result is a copy, unless `side` is 1.
    """
    height, width = x_BCHW.shape[2] // side, x_BCHW.shape[3] // side
    x_BHWC = x_BCHW.permute(0, 2, 3, 1)[:, : height * side, : width * side]
    x_BHSWSC = x_BHWC.unflatten(2, (width, side)).unflatten(1, (height, side))
    return x_BHSWSC.transpose(2, 3).flatten(3).flatten(1, 2)


class PatchEmbedding(nn.Module):
    """The embedding of overlapping patches: a strided convolution, then a norm."""

    def __init__(self, config: PVTv2Config, stage: int) -> None:
        super().__init__()
        inputs = config.embed_dims[stage - 1] if stage else 3
        channels, kernel = config.embed_dims[stage], KERNELS[stage]
        self.conv = nn.Conv2d(inputs, channels, kernel, stride=STRIDES[stage], padding=kernel // 2)
        self.norm = nn.LayerNorm(channels, eps=config.embed_eps)

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, int, int]:
        """Returns the tokens BNC, and the height and width of their map."""
        x_BCHW = self.conv(x_BCHW)
        return self.norm(to_tokens(x_BCHW)), x_BCHW.shape[2], x_BCHW.shape[3]


class Attention(nn.Module):
    """Attention from every token to few keys: spatial-reduction attention, or linear attention.

    Spatial-reduction attention makes one key from each window of `sr_ratios` x `sr_ratios` tokens; tokens past the last
    whole window are in no key. Linear attention makes 7x7 keys from a map of any size.
    """

    def __init__(self, config: PVTv2Config, stage: int) -> None:
        super().__init__()
        channels, window = config.embed_dims[stage], 1 if config.linear else config.sr_ratios[stage]
        self.num_heads = config.num_heads[stage]
        self.linear = config.linear
        self.q = nn.Linear(channels, channels, bias=config.qkv_bias)
        self.kv = nn.Linear(channels, 2 * channels, bias=config.qkv_bias)
        self.proj = nn.Linear(channels, channels)
        self.reduces = config.linear or window > 1
        if self.reduces:
            self.reduce = nn.Conv2d(channels, channels, window, stride=window)
            # The weights of a window then lie in memory in the order in which `to_windows` puts the tokens.
            weight = self.reduce.weight.data.contiguous(memory_format=torch.channels_last)
            self.reduce.weight = nn.Parameter(weight)
            self.reduce_norm = nn.LayerNorm(channels, eps=config.embed_eps)

    def forward(self, x_BNC: Tensor, height: int, width: int) -> Tensor:
        """Returns the attention output BNC: for each token, the projected mean of the values, weighted by attention."""
        x_BMC = self.reduced(to_map(x_BNC, height, width)) if self.reduces else x_BNC
        heads = (self.num_heads, -1)
        q_BAND = self.q(x_BNC).unflatten(-1, heads).transpose(1, 2)
        k_BMC, v_BMC = self.kv(x_BMC).chunk(2, dim=-1)
        k_BAMD = k_BMC.unflatten(-1, heads).transpose(1, 2)
        v_BAMD = v_BMC.unflatten(-1, heads).transpose(1, 2)
        y_BAND = scaled_dot_product_attention(q_BAND, k_BAMD, v_BAMD)
        return self.proj(y_BAND.transpose(1, 2).flatten(2))

    def reduced(self, x_BCHW: Tensor) -> Tensor:
        """Returns the reduced tokens BMC, from which keys and values are made."""
        if self.linear:
            x_BCHW = adaptive_avg_pool2d(x_BCHW, POOLED_SIDE)
        windows = to_windows(x_BCHW, self.reduce.stride[0])
        weight = self.reduce.weight.permute(0, 2, 3, 1).flatten(1)
        x_BMC = self.reduce_norm(linear(windows, weight, self.reduce.bias))
        return torch.ops.aten.gelu_(x_BMC) if self.linear else x_BMC


class ConvMLP(nn.Module):
    """The MLP with a depthwise 3x3 convolution inside; the zero padding of that convolution encodes positions."""

    def __init__(self, config: PVTv2Config, stage: int) -> None:
        super().__init__()
        channels = config.embed_dims[stage]
        hidden = channels * config.mlp_ratios[stage]
        self.linear = config.linear
        self.fc1 = nn.Linear(channels, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x_BNC: Tensor, height: int, width: int) -> Tensor:
        """Returns the tokens BNC, each computed from the input token at its position and the eight neighbours."""
        x_BNE = self.fc1(x_BNC)
        if self.linear:
            x_BNE = x_BNE.relu_()
        x_BNE = to_tokens(self.dwconv(to_map(x_BNE, height, width)))
        return self.fc2(torch.ops.aten.gelu_(x_BNE))


class Block(nn.Module):
    """Attention and MLP, each after a norm and with a residual connection."""

    def __init__(self, config: PVTv2Config, stage: int) -> None:
        super().__init__()
        channels = config.embed_dims[stage]
        self.norm1 = nn.LayerNorm(channels, eps=config.block_eps)
        self.attention = Attention(config, stage)
        self.norm2 = nn.LayerNorm(channels, eps=config.block_eps)
        self.mlp = ConvMLP(config, stage)

    def forward(self, x_BNC: Tensor, height: int, width: int) -> Tensor:
        """Returns the tokens BNC after the block; the input is not changed."""
        x_BNC = self.attention(self.norm1(x_BNC), height, width).add_(x_BNC)
        return self.mlp(self.norm2(x_BNC), height, width).add_(x_BNC)


class Stage(nn.Module):
    """A stage: a patch embedding, some blocks, a norm."""

    def __init__(self, config: PVTv2Config, stage: int) -> None:
        super().__init__()
        self.embed = PatchEmbedding(config, stage)
        self.blocks = nn.ModuleList(Block(config, stage) for _ in range(config.depths[stage]))
        self.norm = nn.LayerNorm(config.embed_dims[stage], eps=config.block_eps)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns the map BCHW after the stage.

        The sides of the map are half of the input's sides (in the first stage a quarter), rounded up.
        """
        x_BNC, height, width = self.embed(x_BCHW)
        for block in self.blocks:
            x_BNC = block(x_BNC, height, width)
        return to_map(self.norm(x_BNC), height, width)


class PVTv2(nn.Module):
    """The whole network. Its weights take no gradients, and are arbitrary until a checkpoint is loaded."""

    def __init__(self, config: PVTv2Config) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.ModuleList(Stage(config, stage) for stage in range(NUM_STAGES))
        self.head = nn.Linear(config.embed_dims[-1], config.num_classes) if config.num_classes else None
        self.requires_grad_(False).eval()

    def forward_features(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns the four maps BCHW, each after its stage's norm, at strides 4, 8, 16 and 32 (sides rounded up).

        Args:
            images_BCHW: Normalised RGB images of the weights' dtype. Channels-last images are the fastest.

        Raises:
            ValueError: The images have a side that is too short for one key.
        """
        height, width = images_BCHW.shape[2:]
        if min(height, width) < self.config.min_side_px:
            raise ValueError(
                f"An image of {height}x{width} px is too small: this network needs at least "
                f"{self.config.min_side_px} px a side."
            )
        map1_BCHW = self.stages[0](images_BCHW.contiguous(memory_format=torch.channels_last))
        map2_BCHW = self.stages[1](map1_BCHW.contiguous())
        map3_BCHW = self.stages[2](map2_BCHW.contiguous())
        map4_BCHW = self.stages[3](map3_BCHW.contiguous())
        return map1_BCHW, map2_BCHW, map3_BCHW, map4_BCHW

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Returns the logits BK: the head applied to the mean of the last map's tokens.

        Args:
            images_BCHW: As for `forward_features`.

        Raises:
            ValueError: The network has no head, or the images are too small.
        """
        if self.head is None:
            raise ValueError("This network has no head (num_classes is 0): it gives features, not logits.")
        return self.head(to_embedding(self.forward_features(images_BCHW)[-1]))


def to_embedding(last_map_BCHW: Tensor) -> Tensor:
    """Returns the embedding BC: the mean of the last map's tokens, which is the input of the head."""
    return to_tokens(last_map_BCHW).mean(dim=1)
