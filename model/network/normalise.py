"""Normalises images: bytes become the floats that the network takes."""

import torch
from torch import Tensor

from model.network.config import RGB


def normalised(
    images_BHWC: Tensor,
    mean: RGB,
    std: RGB,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Returns the normalised pixels BHWC: (pixels / 255 - mean) / std.

    Args:
        images_BHWC: Images of one size: RGB, uint8, values in [0, 255].
        mean: RGB mean of pixels in [0, 1].
        std: RGB standard deviation of pixels in [0, 1].
        device: Device of the result; by default the device of the images. The images are sent to the device as bytes,
            since floats would be four times the traffic.
        dtype: Type of the result. The arithmetic is done in float32.
    """
    images_BHWC = images_BHWC.to(device)
    scale = torch.tensor([1 / (255 * s) for s in std], device=images_BHWC.device)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=images_BHWC.device)
    return images_BHWC.float().mul_(scale).add_(shift).to(dtype)
