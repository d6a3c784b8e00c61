"""The size policy: at which size the network sees an image of a given size."""

import math
from dataclasses import dataclass, field
from typing import Literal

from pipeline.chunks.failures import ErrorCode, Failure

MIN_SIDE_PX = 32
"""Below this the network has no positions left in its last stage."""

MAX_SOURCE_PIXELS = 2**27
"""An image of more pixels is not decoded, whatever the policy: a few hundred bytes may claim gigabytes."""

IMAGENET_RESIZE_PX, IMAGENET_CROP_PX = 248, 224
"""The shorter side before the crop, and the crop's side: 224 is nine tenths of 248, rounded down."""


@dataclass(frozen=True, kw_only=True)
class SizePolicy:
    """What is done with images that the network cannot, or should not, see at their own size.

    Attributes:
        preprocess: `native` for each image's own size; `imagenet` for the protocol of published accuracies: the shorter
            side at 248 px, then the 224x224 px at the centre. There the other rules have nothing to say.
        min_side_px: fixed; a field because it decides rows, as the others do.
        max_image_pixels: most pixels that the network sees.
        small_images: a side under `min_side_px`: `upscale` until the shorter side has it, or `reject`.
        large_images: more than `max_image_pixels`: `downscale` to the largest size that has no more, or `reject`.
    """

    preprocess: Literal["native", "imagenet"] = "native"
    min_side_px: int = field(default=MIN_SIDE_PX, init=False)
    max_image_pixels: int = 2048 * 2048
    small_images: Literal["upscale", "reject"] = "upscale"
    large_images: Literal["downscale", "reject"] = "downscale"

    def __post_init__(self) -> None:
        if not MIN_SIDE_PX**2 <= self.max_image_pixels <= MAX_SOURCE_PIXELS:
            raise ValueError(f"must lie in {MIN_SIDE_PX**2}..{MAX_SOURCE_PIXELS}, not {self.max_image_pixels}")


@dataclass(frozen=True, kw_only=True, slots=True)
class NetSize:
    """The size that the network sees.

    Attributes:
        scale: factor from the native size: 1.0 unless resized.
        cropped_from: (width, height) of the resized image of which the network sees the centre; None: all of it.
    """

    width: int
    height: int
    scale: float = 1.0
    cropped_from: tuple[int, int] | None = None

    @property
    def resized(self) -> tuple[int, int]:
        """(width, height) of the whole image, resized."""
        return self.cropped_from or (self.width, self.height)


def net_size(width: int, height: int, policy: SizePolicy) -> NetSize | Failure:
    """The size at which the network sees an image of this native size, or why the policy refuses it.

    The aspect is kept but for the rounding of each side. Exchanging width and height exchanges those of the result.
    """
    too_small, too_large = ErrorCode.IMAGE_TOO_SMALL, ErrorCode.IMAGE_TOO_LARGE
    limit = policy.max_image_pixels
    size = f"{width}x{height} px"
    small_side = f"a side under {MIN_SIDE_PX} px"
    if width * height > MAX_SOURCE_PIXELS:
        return Failure(too_large, f"{size} is more than the {MAX_SOURCE_PIXELS} px that are ever decoded")
    shorter = min(width, height)
    if policy.preprocess == "imagenet":
        return _imagenet_size(width, height)
    if shorter < MIN_SIDE_PX:
        if policy.small_images == "reject":
            return Failure(too_small, f"{size} has {small_side}")
        # Whole numbers, rounded half up: floats would round as the machine does.
        net_width, net_height = ((2 * MIN_SIDE_PX * side + shorter) // (2 * shorter) for side in (width, height))
        if net_width * net_height > limit:
            return Failure(too_small, f"{size} has {small_side}; enlarged, it is more than {limit} px")
        return NetSize(width=net_width, height=net_height, scale=MIN_SIDE_PX / shorter)
    if width * height > limit:
        if policy.large_images == "reject":
            return Failure(too_large, f"{size} is more than {limit} px")
        net_width, net_height = math.isqrt(limit * width // height), math.isqrt(limit * height // width)
        if min(net_width, net_height) < MIN_SIDE_PX:
            return Failure(too_large, f"{size} is more than {limit} px; reduced, it has {small_side}")
        return NetSize(width=net_width, height=net_height, scale=math.sqrt(limit / (width * height)))
    return NetSize(width=width, height=height)


def _imagenet_size(width: int, height: int) -> NetSize | Failure:
    """Rounded as torchvision's Resize does: the longer side down."""
    shorter = min(width, height)
    resized = (IMAGENET_RESIZE_PX * width // shorter, IMAGENET_RESIZE_PX * height // shorter)
    if resized[0] * resized[1] > MAX_SOURCE_PIXELS:
        enlarged = f"enlarged to a side of {IMAGENET_RESIZE_PX} px, it is more than {MAX_SOURCE_PIXELS} px"
        return Failure(ErrorCode.IMAGE_TOO_SMALL, f"{width}x{height} px; {enlarged}")
    side = IMAGENET_CROP_PX
    return NetSize(width=side, height=side, scale=IMAGENET_RESIZE_PX / shorter, cropped_from=resized)
