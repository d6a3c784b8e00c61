"""The configuration of a PVTv2, and the table of the published variants."""

import math
from dataclasses import dataclass
from typing import Literal

NUM_STAGES = 4
KERNELS = (7, 3, 3, 3)  # kernel side of the patch embedding at the start of each stage
STRIDES = (4, 2, 2, 2)  # stride of the patch embedding at the start of each stage
POOLED_SIDE = 7  # linear attention pools its keys to 7x7

Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
"""Pillow's names of the filters that resize images."""

RGB = tuple[float, float, float]
"""One number for each of red, green and blue."""

# Mean and standard deviation of ImageNet's pixels in [0, 1]. The published weights were trained on pixels that were
# normalised with these numbers.
IMAGENET_MEAN: RGB = (0.485, 0.456, 0.406)
IMAGENET_STD: RGB = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class PVTv2Config:
    """The configuration of one network. Each tuple has one entry per stage.

    Attributes:
        embed_dims: Number of channels.
        depths: Number of blocks.
        num_heads: Number of attention heads, which must divide `embed_dims`.
        mlp_ratios: Hidden channels of the MLP divided by `embed_dims`.
        sr_ratios: Side, in tokens, of the window that is reduced to one key. Linear attention does not use this side.
        linear: True for linear attention (the `-linear` variants), whose keys are the map pooled to 7x7. False for one
            key per window.
        num_classes: Number of classes, which is the number of rows of the head; 0 for a network without a head.
        qkv_bias: True if the layers that compute queries, keys and values have a bias.
        block_eps: Epsilon of the norms in the blocks and after each stage.
        embed_eps: Epsilon of the norms after a patch embedding and after the reduction of keys. The value depends on
            the source of the weights: 1e-6 in transformers, 1e-5 in timm and in the authors' repository.

    Source: Wang et al. 2022, "PVT v2: Improved Baselines with Pyramid Vision Transformer", table 1.
    """

    embed_dims: tuple[int, ...]
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    mlp_ratios: tuple[int, ...]
    sr_ratios: tuple[int, ...]
    linear: bool = False
    num_classes: int = 1000
    qkv_bias: bool = True
    block_eps: float = 1e-6
    embed_eps: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("embed_dims", "depths", "num_heads", "mlp_ratios", "sr_ratios"):
            numbers = getattr(self, name)
            is_whole = isinstance(numbers, tuple) and all(type(number) is int and number > 0 for number in numbers)
            if not is_whole or len(numbers) != NUM_STAGES:
                raise ValueError(f"{name} must be a tuple of four whole numbers above 0, not {numbers!r}.")
        for channels, heads in zip(self.embed_dims, self.num_heads, strict=True):
            if channels % heads:
                raise ValueError(
                    f"{channels} channels cannot be shared by {heads} heads: num_heads must divide embed_dims."
                )
        if self.num_classes < 0:
            raise ValueError(f"num_classes must be 0 (no head) or more, not {self.num_classes}.")
        if not (0 < self.block_eps < math.inf and 0 < self.embed_eps < math.inf):
            raise ValueError(
                f"block_eps and embed_eps must be above 0 and finite, not {self.block_eps} and {self.embed_eps}."
            )

    @property
    def min_side_px(self) -> int:
        """The shortest image side in pixels at which every stage has a key: 29 for `b0` to `b5`, 1 for `b2-linear`."""
        if self.linear:
            return 1
        strides = (4, 8, 16, 32)
        return max((ratio - 1) * stride + 1 for ratio, stride in zip(self.sr_ratios, strides, strict=True))


def _variant(
    depths: tuple[int, ...],
    *,
    embed_dims: tuple[int, ...] = (64, 128, 320, 512),
    mlp_ratios: tuple[int, ...] = (8, 8, 4, 4),
    linear: bool = False,
) -> PVTv2Config:
    return PVTv2Config(
        embed_dims=embed_dims,
        depths=depths,
        num_heads=(1, 2, 5, 8),
        mlp_ratios=mlp_ratios,
        sr_ratios=(8, 4, 2, 1),
        linear=linear,
    )


VARIANTS: dict[str, PVTv2Config] = {
    "b0": _variant((2, 2, 2, 2), embed_dims=(32, 64, 160, 256)),
    "b1": _variant((2, 2, 2, 2)),
    "b2": _variant((3, 4, 6, 3)),
    "b2-linear": _variant((3, 4, 6, 3), linear=True),
    "b3": _variant((3, 4, 18, 3)),
    "b4": _variant((3, 8, 27, 3)),
    "b5": _variant((3, 6, 40, 3), mlp_ratios=(4, 4, 4, 4)),
}


def variant_of(config: PVTv2Config) -> str | None:
    """Returns the name of the published variant that has the config's structure, or None if no variant has it.

    The number of classes, biases and epsilons are not compared.
    """
    for name, variant in VARIANTS.items():
        if structure(config) == structure(variant):
            return name
    return None


def structure(config: PVTv2Config) -> tuple[tuple[int, ...] | bool, ...]:
    """Returns the settings in which variants differ.

    The settings are channels, depths, heads, MLP ratios, reduction ratios, and whether attention is linear.
    """
    reduction = () if config.linear else config.sr_ratios
    return (config.embed_dims, config.depths, config.num_heads, config.mlp_ratios, reduction, config.linear)


def stage_sides(height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Returns (height, width) of each stage's map, in tokens, for an image of height x width pixels."""
    sides = []
    for stride in STRIDES:
        height, width = -(-height // stride), -(-width // stride)
        sides.append((height, width))
    return tuple(sides)
