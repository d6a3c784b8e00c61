"""The cost of a network: its parameters, and the multiply-accumulates of one image, both by formula."""

from functools import lru_cache
from math import prod

from model.network.config import KERNELS, POOLED_SIDE, PVTv2Config, stage_sides
from model.network.shapes import IMAGE_CHANNELS, parameter_shapes


def count_parameters(config: PVTv2Config) -> int:
    """Returns the exact number of weights and biases of `PVTv2(config)`."""
    return sum(map(prod, parameter_shapes(config).values()))


@lru_cache(maxsize=65536)
def count_macs(config: PVTv2Config, height: int, width: int) -> int:
    """Returns the multiply-accumulates of one image of height x width pixels.

    Convolutions, linear layers, attention and the head are counted. Norms, activations, biases, pooling and softmax are
    not counted, as is usual; together they are about a hundredth of the total.
    """
    total = 0
    inputs = IMAGE_CHANNELS
    for stage, (map_height, map_width) in enumerate(stage_sides(height, width)):
        channels = config.embed_dims[stage]
        hidden = channels * config.mlp_ratios[stage]
        tokens = map_height * map_width
        window = 1 if config.linear else config.sr_ratios[stage]
        keys = POOLED_SIDE**2 if config.linear else (map_height // window) * (map_width // window)
        reduces = config.linear or window > 1
        block = (
            2 * tokens * channels**2  # queries and output
            + 2 * keys * channels**2  # keys and values
            + keys * (channels * window) ** 2 * reduces
            + 2 * tokens * keys * channels  # scores and weighted sum
            + 2 * tokens * channels * hidden
            + 9 * tokens * hidden  # depthwise 3x3
        )
        total += tokens * channels * inputs * KERNELS[stage] ** 2 + config.depths[stage] * block
        inputs = channels
    return total + inputs * config.num_classes
