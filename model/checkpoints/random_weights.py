"""Random weights for tests and examples. Every parameter is random, and the same seed gives the same network."""

import torch

from model.network.config import PVTv2Config
from model.network.pvt_v2 import PVTv2

BIAS_STD = 0.05
NORM_STD = 0.1
HEAD_GAIN = 2.0  # the best of a thousand classes then gets a score of about a tenth; with 1.0 about a hundredth


def random_weights(config: PVTv2Config, seed: int) -> PVTv2:
    """Returns a network, on the CPU in float32, whose parameters are drawn from normal distributions.

    Weights have variance 1 / fan-in, so that each layer keeps the scale of its input; as every branch begins with a
    norm, activations stay near 1 at any depth. Biases vary a little around 0, and the weights of norms around 1.
    Different photos then have clearly different embeddings, and so different classes.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        model = PVTv2(config)
    model = model.to_empty(device="cpu")
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            mean, std = 0.0, BIAS_STD
        elif parameter.dim() == 1:
            mean, std = 1.0, NORM_STD
        else:
            gain = HEAD_GAIN if name == "head.weight" else 1.0
            mean, std = 0.0, gain * parameter[0].numel() ** -0.5
        parameter.copy_(mean + std * torch.randn(parameter.shape, generator=generator))
    return model
