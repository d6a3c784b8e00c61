"""The size policy: the size at which the network sees an image of a given size."""

import math
from dataclasses import dataclass, field
from typing import Literal

from pipeline.chunks.failures import ErrorCode, Failure

MIN_SIDE_PX = 32
"""The smallest side of an image whose map in the network's last stage has at least one position."""

MAX_SOURCE_PIXELS = 2**27
"""The most pixels of an image that is decoded under any policy: a file of a few hundred bytes may claim gigabytes."""

IMAGENET_RESIZE_PX, IMAGENET_CROP_PX = 248, 224
"""The shorter side in pixels before the crop, and the side of the crop: 248 is 224 / 0.9, rounded down."""


@dataclass(frozen=True, kw_only=True)
class SizePolicy:
    """Rules for the size at which the network sees an image.

    Attributes:
        preprocess: `native` keeps each image's own size, within the other rules. `imagenet` is the protocol of
            published accuracies: the shorter side is resized to 248 px and the network sees the 224x224 px at the
            centre; the other rules do not apply.
        min_side_px: Smallest side that the network sees. The value is fixed; it is a field because it is part of an
            output's identity.
        max_image_pixels: Most pixels that the network sees.
        small_images: Rule for an image with a side under `min_side_px`: `upscale` enlarges the image until its shorter
            side is `min_side_px`, `reject` makes the image a failed record.
        large_images: Rule for an image of more than `max_image_pixels`: `downscale` reduces the image to the largest
            size within the limit, `reject` makes the image a failed record.
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
    """The size of an image as the network sees it.

    Attributes:
        width, height: Size in pixels.
        scale: Factor from the native size; 1.0 for an image that is not resized.
        cropped_from: (width, height) of the resized image before its centre is cut out; None without a crop.
    """

    width: int
    height: int
    scale: float = 1.0
    cropped_from: tuple[int, int] | None = None

    @property
    def resized(self) -> tuple[int, int]:
        """The (width, height) of the whole image after it was resized and before it is cropped."""
        return self.cropped_from or (self.width, self.height)


def net_size(width: int, height: int, policy: SizePolicy) -> NetSize | Failure:
    """Returns the size at which the network sees an image of a native size, or why the policy rejects the image.

    The aspect ratio is kept, except that each side is rounded. Exchanging width and height of an image exchanges width
    and height of the result.
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
        # Integer arithmetic rounds half up on every machine; floats may not.
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
    """Returns the size of the ImageNet protocol; the longer side is rounded down, as torchvision's Resize does."""
    shorter = min(width, height)
    resized = (IMAGENET_RESIZE_PX * width // shorter, IMAGENET_RESIZE_PX * height // shorter)
    if resized[0] * resized[1] > MAX_SOURCE_PIXELS:
        enlarged = f"enlarged to a side of {IMAGENET_RESIZE_PX} px, it is more than {MAX_SOURCE_PIXELS} px"
        return Failure(ErrorCode.IMAGE_TOO_SMALL, f"{width}x{height} px; {enlarged}")
    side = IMAGENET_CROP_PX
    return NetSize(width=side, height=side, scale=IMAGENET_RESIZE_PX / shorter, cropped_from=resized)
