"""The size policy: the size at which the network sees an image of a given size."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from model.network.config import Filter
from pipeline.chunks.failures import ErrorCode, Failure

MIN_SIDE_PX = 32
"""The smallest side of an image whose map in the network's last stage has at least one position."""

MAX_SOURCE_PIXELS = 2**27
"""The most pixels of an image that is decoded under any policy: a file of a few hundred bytes may claim gigabytes."""

MAX_SIDE_PX = 2**14
"""The largest side to which a policy resizes."""


@dataclass(frozen=True, kw_only=True)
class Resize:
    """A rule that resizes every image before the other rules apply.

    Attributes:
        to: `shorter` makes the shorter side `width` px, and `longest` makes the longer side `width` px; `longer` does
            as `longest`, but leaves smaller images as they are. All three keep the aspect ratio, and the other side is
            rounded down. `stretch` makes each image `width` x `height` px. `multiple` reduces each side to a multiple
            of `width` px.
        width, height: Sides in pixels; equal but for `stretch`.
        crop: (width, height) of the part at the centre that the network sees; None for the whole image.
        filter: Filter that resizes, with antialiasing.
    """

    to: Literal["shorter", "longer", "longest", "stretch", "multiple"]
    width: int
    height: int
    crop: tuple[int, int] | None = None
    filter: Filter = "bicubic"

    def __post_init__(self) -> None:
        least = 1 if self.to == "multiple" else MIN_SIDE_PX
        for side in (self.width, self.height, *(self.crop or ())):
            if not least <= side <= MAX_SIDE_PX:
                raise ValueError(f"a side must lie in {least}..{MAX_SIDE_PX} px, not {side}")
        if self.to != "stretch" and self.width != self.height:
            raise ValueError(f"{self.to} takes one side, not {self.width}x{self.height}")
        if self.crop is not None and (self.to not in ("shorter", "stretch") or not self._holds(self.crop)):
            raise ValueError(f"a crop of {self.crop[0]}x{self.crop[1]} px does not lie within the resized image")

    def _holds(self, crop: tuple[int, int]) -> bool:
        return crop[0] <= self.width and crop[1] <= self.height

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Returns the (width, height) of a resized image, before a crop; at least one pixel each."""
        if self.to == "stretch":
            return self.width, self.height
        if self.to == "multiple":
            return max(width // self.width, 1) * self.width, max(height // self.width, 1) * self.width
        side = (min if self.to == "shorter" else max)(width, height)
        if self.to == "longer" and side <= self.width:
            return width, height
        return max(self.width * width // side, 1), max(self.width * height // side, 1)


IMAGENET = Resize(to="shorter", width=248, height=248, crop=(224, 224))
"""The protocol of published accuracies: 248 is 224 / 0.9, rounded down."""


@dataclass(frozen=True, kw_only=True)
class SizePolicy:
    """Rules for the size at which the network sees an image.

    Attributes:
        preprocess: `native` keeps each image's own size, within the other rules. `imagenet` is `IMAGENET`; the other
            rules do not apply.
        resize: Rule that resizes every image of the policy `native`; None for no such rule.
        min_side_px: Smallest side that the network sees. The value is fixed; it is a field because it is part of an
            output's identity.
        max_image_pixels: Most pixels that the network sees.
        small_images: Rule for an image with a side under `min_side_px`: `upscale` enlarges the image until its shorter
            side is `min_side_px`, `reject` makes the image a failed record.
        large_images: Rule for an image of more than `max_image_pixels`: `downscale` reduces the image to the largest
            size within the limit, `reject` makes the image a failed record.
        jpeg_decoding: `whole` decodes a JPEG at its own size. `reduced` decodes a JPEG that is resized to half of its
            size or less at a half, a quarter or an eighth of its size, which is quicker, and resizes the result; pixels
            differ a little.
    """

    preprocess: Literal["native", "imagenet"] = "native"
    resize: Resize | None = None
    min_side_px: int = field(default=MIN_SIDE_PX, init=False)
    max_image_pixels: int = 2048 * 2048
    small_images: Literal["upscale", "reject"] = "upscale"
    large_images: Literal["downscale", "reject"] = "downscale"
    jpeg_decoding: Literal["whole", "reduced"] = "whole"

    def __post_init__(self) -> None:
        if not MIN_SIDE_PX**2 <= self.max_image_pixels <= MAX_SOURCE_PIXELS:
            raise ValueError(f"must lie in {MIN_SIDE_PX**2}..{MAX_SOURCE_PIXELS}, not {self.max_image_pixels}")
        if self.resize is not None:
            self._check_resize(self.resize)

    def _check_resize(self, resize: Resize) -> None:
        if self.preprocess == "imagenet":
            raise ValueError("the policy imagenet has a size of its own")
        seen = resize.crop or ((resize.width, resize.height) if resize.to == "stretch" else None)
        if seen is not None and seen[0] * seen[1] > self.max_image_pixels:
            raise ValueError(f"{seen[0]}x{seen[1]} px is more than {self.max_image_pixels} px")


def policy_from(values: Mapping[str, Any]) -> SizePolicy:
    """Returns the policy that `dataclasses.asdict` wrote, from the types of JSON.

    Raises:
        KeyError, TypeError, ValueError: The values are not those of a policy.
    """
    fields = {name: value for name, value in values.items() if name != "min_side_px"}
    if (resize := fields.get("resize")) is not None:
        crop = resize["crop"]
        fields["resize"] = Resize(**{**resize, "crop": None if crop is None else tuple(crop)})
    return SizePolicy(**fields)


@dataclass(frozen=True, kw_only=True, slots=True)
class NetSize:
    """The size of an image as the network sees it.

    Attributes:
        width, height: Size in pixels.
        scale: Factor from the native size; 1.0 for an image that is not resized. If the aspect ratio is not kept, the
            square root of the factor of the number of pixels.
        cropped_from: (width, height) of the resized image before its centre is cut out; None without a crop.
        filter: Filter that resizes.
    """

    width: int
    height: int
    scale: float = 1.0
    cropped_from: tuple[int, int] | None = None
    filter: Filter = "bicubic"

    @property
    def resized(self) -> tuple[int, int]:
        """The (width, height) of the whole image after it was resized and before it is cropped."""
        return self.cropped_from or (self.width, self.height)


def net_size(width: int, height: int, policy: SizePolicy) -> NetSize | Failure:
    """Returns the size at which the network sees an image of a native size, or why the policy rejects the image.

    The image is resized first, then cropped. The rules for small and large images apply to the size of a resized image
    that is not cropped; they resize the native image, so that pixels are resized once. Each side is rounded on its own.
    Exchanging width and height of an image exchanges width and height of the result, unless the policy itself names a
    width and another height.
    """
    if width * height > MAX_SOURCE_PIXELS:
        message = f"{width}x{height} px is more than the {MAX_SOURCE_PIXELS} px that are ever decoded"
        return Failure(ErrorCode.IMAGE_TOO_LARGE, message)
    resize = IMAGENET if policy.preprocess == "imagenet" else policy.resize
    if resize is None:
        return _within_limits(width, height, NetSize(width=width, height=height), policy)
    resized = resize.resized(width, height)
    if resized[0] * resized[1] > MAX_SOURCE_PIXELS:
        side = f"enlarged to a side of {resize.width} px, it is more than {MAX_SOURCE_PIXELS} px"
        return Failure(ErrorCode.IMAGE_TOO_SMALL, f"{width}x{height} px; {side}")
    scale = _scale(width, height, resized, resize)
    if resize.crop is not None:
        crop_width, crop_height = resize.crop
        return NetSize(width=crop_width, height=crop_height, scale=scale, cropped_from=resized, filter=resize.filter)
    size = NetSize(width=resized[0], height=resized[1], scale=scale, filter=resize.filter)
    return _within_limits(width, height, size, policy)


def _scale(width: int, height: int, resized: tuple[int, int], resize: Resize) -> float:
    if resized == (width, height):
        return 1.0
    if resize.to in ("shorter", "longer", "longest"):
        return resize.width / (min if resize.to == "shorter" else max)(width, height)
    return math.sqrt(resized[0] * resized[1] / (width * height))


def _within_limits(width: int, height: int, size: NetSize, policy: SizePolicy) -> NetSize | Failure:
    """Returns the size of an image that is not cropped under the rules for small and large images."""
    too_small, too_large = ErrorCode.IMAGE_TOO_SMALL, ErrorCode.IMAGE_TOO_LARGE
    limit, small_side = policy.max_image_pixels, f"a side under {MIN_SIDE_PX} px"
    text = f"{width}x{height} px"
    if size.resized != (width, height):
        text += f", resized to {size.width}x{size.height} px,"
    if min(size.width, size.height) < MIN_SIDE_PX:
        if policy.small_images == "reject":
            return Failure(too_small, f"{text} has {small_side}")
        shorter = min(width, height)
        # Integer arithmetic rounds half up on every machine; floats may not.
        net_width, net_height = ((2 * MIN_SIDE_PX * side + shorter) // (2 * shorter) for side in (width, height))
        if net_width * net_height > limit:
            return Failure(too_small, f"{text} has {small_side}; enlarged, it is more than {limit} px")
        return replace(size, width=net_width, height=net_height, scale=MIN_SIDE_PX / shorter)
    if size.width * size.height > limit:
        if policy.large_images == "reject":
            return Failure(too_large, f"{text} is more than {limit} px")
        net_width, net_height = math.isqrt(limit * width // height), math.isqrt(limit * height // width)
        if min(net_width, net_height) < MIN_SIDE_PX:
            return Failure(too_large, f"{text} is more than {limit} px; reduced, it has {small_side}")
        return replace(size, width=net_width, height=net_height, scale=math.sqrt(limit / (width * height)))
    return size
