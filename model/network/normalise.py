"""Pixels become what the network takes: normalised by mean and standard deviation, on its device, of its dtype."""

import torch
from torch import Tensor

from model.network.pvt_v2 import PVTv2

RGB = tuple[float, float, float]


IMAGENET_MEAN = (0.485, 0.456, 0.406)


IMAGENET_STD = (0.229, 0.224, 0.225)


def normalised(model: PVTv2, images_BHWC: Tensor, mean: RGB, std: RGB) -> Tensor:
    """The pixels BHWC as the network wants them: on its device, of its dtype.

    Bytes are sent to the device, and become floats there: a quarter of the traffic.
    """
    parameter = next(model.parameters())
    scale = torch.tensor([1 / (255 * s) for s in std], device=parameter.device)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=parameter.device)
    pixels_BHWC = images_BHWC.to(parameter.device).float().mul_(scale).add_(shift)
    return pixels_BHWC.to(parameter.dtype)
