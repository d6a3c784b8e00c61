"""The flags for the size at which the network sees images, and the values that are made from these flags."""

import argparse
from collections.abc import Sequence
from typing import Any

from pipeline.chunks.size_policy import SizePolicy
from pipeline.config.size import SizeRequest, parse_size
from pipeline.errors import ConfigError

_PREPROCESS_HELP = (
    "native: each image at its own size; imagenet: as published, the shorter side at 248 px and a centre crop of 224; "
    "default: %(default)s"
)
_SIZE_HELP = (
    "native; checkpoint: as its files say; shorter:N, longer:N: that side in pixels; pixels:N: at most N pixels; "
    "square:N: the centre, as published; stretch:N: both sides; default: native, with a warning if that is "
    "far from the size in training"
)
_JPEG_HELP = (
    "reduced: decode JPEGs that are resized to half of their size or less at a half, a quarter or an eighth, which is "
    "quicker and changes pixels a little; default: %(default)s"
)
_SIZE_FROM_HELP = "the size that an evaluation chose: the --output of jobs/evaluate.py --sweep with these weights"
_SMALL_HELP = "images with a side under 32 px; default: %(default)s"


def add_size_flags(group: Any, policies: Sequence[str]) -> None:
    """Adds the flags to a group of a parser.

    Args:
        policies: Choices of `--preprocess`.
    """
    add = group.add_argument
    add("--preprocess", choices=policies, default=SizePolicy.preprocess, help=_PREPROCESS_HELP)
    add("--size", metavar="SIZE", help=_SIZE_HELP)
    add("--size-from", metavar="URI", help=_SIZE_FROM_HELP)
    add("--max-image-pixels", type=int, metavar="N", help=f"default: {SizePolicy.max_image_pixels}")
    add("--large-images", choices=("downscale", "reject"), help=f"default: {SizePolicy.large_images}")
    add("--jpeg-decoding", choices=("whole", "reduced"), default=SizePolicy.jpeg_decoding, help=_JPEG_HELP)
    add("--small-images", choices=("upscale", "reject"), default=SizePolicy.small_images, help=_SMALL_HELP)


def size_policy(flags: argparse.Namespace) -> SizePolicy:
    """Returns the policy for the sizes of images.

    Raises:
        ConfigError: The policy refuses its values.
    """
    limits = {"max_image_pixels": flags.max_image_pixels, "large_images": flags.large_images}
    try:
        return SizePolicy(
            preprocess=flags.preprocess,
            small_images=flags.small_images,
            jpeg_decoding=flags.jpeg_decoding,
            **{name: value for name, value in limits.items() if value is not None},
        )
    except ValueError as error:
        raise ConfigError(f"--max-image-pixels: {error}") from error


def size_request(flags: argparse.Namespace) -> SizeRequest | None:
    """Returns the size that images are to have for the network; None if the user chose none.

    Raises:
        ConfigError: The flag has no known form, or contradicts another flag.
    """
    if flags.size is None:
        return None
    request = parse_size(flags.size)
    if request.kind == "pixels" and flags.max_image_pixels not in (None, request.number):
        raise ConfigError(f"--size {request} and --max-image-pixels {flags.max_image_pixels} differ; give one of them")
    if request.kind == "pixels" and flags.large_images == "reject":
        raise ConfigError(f"--size {request} reduces images that --large-images reject refuses; give one of them")
    return request
