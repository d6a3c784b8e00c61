"""The multiply-accumulates of one image in a PVTv2, counted layer by layer from the numbers of the architecture.

The count includes convolutions, linear layers, the two products of attention, and the head. The count leaves out norms,
activations, biases and means.

Source: Wang et al. 2022, "PVT v2: Improved Baselines with Pyramid Vision Transformer", section 3 and table 1.
"""

from collections.abc import Mapping
from typing import Any

# (kernel, stride) of the overlapping patch embedding in front of each stage.
_PATCHES = ((7, 4), (3, 2), (3, 2), (3, 2))
_POOLED_SIDE = 7


def reckon_macs(model: Mapping[str, Any], height: int, width: int) -> int:
    """Returns the multiply-accumulates of an image of height x width pixels.

    Args:
        model: The object `model` of an output's `_job.json`, with `embed_dims`, `depths`, `mlp_ratios`, `sr_ratios`,
            `linear` and `num_classes`.

    Raises:
        KeyError, IndexError, TypeError: `model` does not describe a PVTv2.
    """
    total, channels = 0, 3
    for stage, (kernel, stride) in enumerate(_PATCHES):
        inputs, channels = channels, model["embed_dims"][stage]
        height, width = (_convolved(side, kernel, stride, kernel // 2) for side in (height, width))
        total += height * width * channels * inputs * kernel * kernel
        tokens, hidden = height * width, channels * model["mlp_ratios"][stage]
        keys, reduction = _keys(model, stage, height, width)
        layers = [
            tokens * channels * channels,  # queries
            reduction,
            keys * channels * 2 * channels,  # keys and values
            tokens * keys * channels,  # scores, over all heads
            tokens * keys * channels,  # sums of the values, weighted by the scores
            tokens * channels * channels,  # projection
            tokens * channels * hidden,  # MLP, in
            tokens * hidden * 3 * 3,  # depthwise convolution
            tokens * hidden * channels,  # MLP, out
        ]
        total += model["depths"][stage] * sum(layers)
    return total + channels * model["num_classes"]


def _keys(model: Mapping[str, Any], stage: int, height: int, width: int) -> tuple[int, int]:
    """Returns the number of keys that a block attends to, and the multiply-accumulates of reducing tokens to keys."""
    channels, side = model["embed_dims"][stage], model["sr_ratios"][stage]
    if model["linear"]:
        return _POOLED_SIDE**2, _POOLED_SIDE**2 * channels * channels
    if side == 1:
        return height * width, 0
    keys = _convolved(height, side, side, 0) * _convolved(width, side, side, 0)
    return keys, keys * channels * channels * side * side


def _convolved(side: int, kernel: int, stride: int, padding: int) -> int:
    return (side + 2 * padding - kernel) // stride + 1
