"""The size at which the network saw an image, reckoned from the image's own size and the numbers in `_job.json`."""

from collections.abc import Mapping
from fractions import Fraction
from math import floor, isqrt
from typing import Any

_LEAST_SIDE = 32


def reckon_net_size(identity: Mapping[str, Any], width: int, height: int) -> tuple[int, int] | None:
    """Returns (width, height) as the network saw an image of a size; None if the image was to be refused.

    Raises:
        KeyError, TypeError: The identity has no size policy, or one that is not known.
    """
    sizes = identity["sizes"]
    if identity["preprocess"]["policy"] == "imagenet":
        return 224, 224
    rule = sizes.get("resize")
    if rule is not None and rule["crop"] is not None:
        crop_width, crop_height = rule["crop"]
        return crop_width, crop_height
    seen = (width, height) if rule is None else _resized(rule, width, height)
    if min(seen) < _LEAST_SIDE:
        factor = Fraction(_LEAST_SIDE, min(width, height))
        enlarged = floor(width * factor + Fraction(1, 2)), floor(height * factor + Fraction(1, 2))
        is_fine = sizes["small_images"] == "upscale" and enlarged[0] * enlarged[1] <= sizes["max_image_pixels"]
        return enlarged if is_fine else None
    if seen[0] * seen[1] > sizes["max_image_pixels"]:
        if sizes["large_images"] != "downscale":
            return None
        aspect = Fraction(width, height)
        area = sizes["max_image_pixels"]
        reduced = isqrt(floor(area * aspect)), isqrt(floor(area / aspect))
        return reduced if min(reduced) >= _LEAST_SIDE else None
    return seen


def _resized(rule: Mapping[str, Any], width: int, height: int) -> tuple[int, int]:
    if rule["to"] == "stretch":
        return rule["width"], rule["height"]
    if rule["to"] == "multiple":
        step = rule["width"]
        return max(width - width % step, step), max(height - height % step, step)
    sides = {"shorter": min(width, height), "longer": max(width, height), "longest": max(width, height)}
    factor = Fraction(rule["width"], sides[rule["to"]])
    if rule["to"] == "longer" and factor >= 1:
        return width, height
    return max(floor(width * factor), 1), max(floor(height * factor), 1)
