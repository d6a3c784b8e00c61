"""Reads what a checkpoint says about the size of images: how to resize them, and how large they were in training.

The rules of each source are those of its own evaluation code:

- `preprocessor_config.json`: transformers, `image_processing_utils.py` and the image processors of PVT, ConvNext and
  GLPN. A `size` that is a number means both sides; if the image is cropped after it, it means the shorter side.
- `pretrained_cfg` in timm's `config.json`: timm, `data/config.py` and `data/transforms_factory.py`. Values for tests
  come before the others. timm's rule for sides that differ (`ResizeKeepRatio`) and its `border`, which pads, are not
  followed.
- `image_size` in transformers' `config.json`: the side of the square that the network was trained at. The published
  protocol applies: the shorter side is the square's side / 0.9, and the centre is cropped.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from model.errors import CheckpointError
from model.network.config import Filter

CROP_SHARE = 0.9
"""Share of the shorter side that the published protocol crops."""

# Numbers of Pillow's filters, as transformers stores them, and their names, as timm stores them.
_FILTERS: dict[object, Filter] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_TRANSFORMERS_FILTER = 2
_TIMM_CROP_SHARE = 0.875
_CONVNEXT_WITHOUT_CROP_PX = 384
_LARGEST_PX = 2**14


@dataclass(frozen=True, kw_only=True)
class InputSize:
    """How images are resized for a network.

    Attributes:
        to: `shorter` makes the shorter side `width` px, `longest` the longer side; both keep the aspect ratio, and the
            other side is rounded down. `stretch` makes the image `width` x `height` px. `multiple` reduces each side to
            a multiple of `width` px.
        width, height: Sides in pixels; equal but for `stretch`.
        crop: (width, height) in pixels of the part at the centre that is kept; None for the whole image.
        filter: Name of Pillow's filter.
    """

    to: Literal["shorter", "longest", "stretch", "multiple"]
    width: int
    height: int
    crop: tuple[int, int] | None = None
    filter: Filter = "bicubic"


@dataclass(frozen=True, kw_only=True)
class SizeAdvice:
    """Sizes of images that a checkpoint names.

    Attributes:
        resize: How the checkpoint resizes images; None if it says nothing.
        source: Where `resize` stands, such as `preprocessor_config.json`; empty without `resize`.
        trained_px: Shorter side in pixels of the images in training; None if the checkpoint says nothing.
        trained_range_px: Least and largest shorter side in training, for weights that were trained at varied sizes;
            else None.
        crop_share: Share of the shorter side that is cropped, where the checkpoint crops squares; else None.
        filter: Name of the filter that resizes; None if the checkpoint names none.
        problem: Why the checkpoint's rule cannot be followed, with the rule's text; None if there is no such rule.
    """

    resize: InputSize | None = None
    source: str = ""
    trained_px: int | None = None
    trained_range_px: tuple[int, int] | None = None
    crop_share: float | None = None
    filter: Filter | None = None
    problem: str | None = None


def read_size_advice(config: Mapping[str, Any] | None, preprocessor: Mapping[str, Any] | None) -> SizeAdvice:
    """Returns what a checkpoint says about the size of images.

    A rule in `preprocessor_config.json` comes before timm's `pretrained_cfg`, which comes before `image_size`. A file
    that does not resize is passed over.

    Args:
        config: JSON object of `config.json`, of transformers or timm; None if there is no such file.
        preprocessor: JSON object of `preprocessor_config.json`; None if there is no such file.
    """
    timm = config.get("pretrained_cfg") if config is not None and "architecture" in config else None
    trained = _trained(config, timm if isinstance(timm, Mapping) else None)
    varied = _trained_range(config)
    share, source, resize = None, "", None
    try:
        if preprocessor is not None:
            source = "preprocessor_config.json"
            resize = _by_transformers(preprocessor)
            share = resize.crop[0] / resize.width if resize is not None and resize.crop is not None else None
        if resize is None and isinstance(timm, Mapping):
            source = "timm's pretrained_cfg"
            resize, share = _by_timm(timm), _timm_share(timm)
        if resize is None and timm is None and config is not None:
            source = "config.json's image_size"
            resize = _by_image_size(config)
    except CheckpointError as error:
        return SizeAdvice(source=source, trained_px=trained, trained_range_px=varied, problem=f"{source}: {error}")
    if resize is None:
        return SizeAdvice(trained_px=trained, trained_range_px=varied)
    if trained is None and resize.to != "multiple":
        trained = min(resize.crop or (resize.width, resize.height))
    return SizeAdvice(
        resize=resize,
        source=source,
        trained_px=trained,
        trained_range_px=varied,
        crop_share=share,
        filter=resize.filter,
    )


def _by_transformers(raw: Mapping[str, Any]) -> InputSize | None:
    if not raw.get("do_resize", "size" in raw or "size_divisor" in raw):
        return None
    if raw.get("do_pad") or raw.get("do_thumbnail"):
        raise CheckpointError(f"images are padded or reduced twice ({_shown(raw, 'do_pad', 'do_thumbnail')})")
    filter_ = _filter(raw.get("resample", _TRANSFORMERS_FILTER))
    size = raw.get("size")
    if size is None and "size_divisor" in raw:
        side = _side(raw["size_divisor"], "size_divisor")
        return InputSize(to="multiple", width=side, height=side, filter=filter_)
    does_crop = bool(raw.get("do_center_crop", False))
    crop = _both_sides(raw.get("crop_size", size), "crop_size") if does_crop else None
    if isinstance(size, Mapping):
        keys = {key for key, value in size.items() if value is not None}
        if keys == {"height", "width"}:
            width, height = _side(size["width"], "size"), _side(size["height"], "size")
            crop = _within(crop, width, height)
            return InputSize(to="stretch", width=width, height=height, crop=crop, filter=filter_)
        if keys == {"shortest_edge"} and raw.get("crop_pct"):
            return _by_convnext(_side(size["shortest_edge"], "size"), raw["crop_pct"], filter_)
        if keys == {"shortest_edge"}:
            side = _side(size["shortest_edge"], "size")
            return InputSize(to="shorter", width=side, height=side, crop=_within(crop, side, side), filter=filter_)
        if keys == {"longest_edge"} and crop is None:
            side = _side(size["longest_edge"], "size")
            return InputSize(to="longest", width=side, height=side, filter=filter_)
        raise CheckpointError(f"the size {dict(size)!r} is not understood")
    width, height = _both_sides(size, "size")
    if crop is not None and width == height:
        return InputSize(to="shorter", width=width, height=height, crop=_within(crop, width, height), filter=filter_)
    return InputSize(to="stretch", width=width, height=height, crop=_within(crop, width, height), filter=filter_)


def _by_convnext(side: int, share: object, filter_: Filter) -> InputSize:
    if side >= _CONVNEXT_WITHOUT_CROP_PX:
        return InputSize(to="stretch", width=side, height=side, filter=filter_)
    resized = int(side / _share(share))
    return InputSize(to="shorter", width=resized, height=resized, crop=(side, side), filter=filter_)


def _by_timm(raw: Mapping[str, Any]) -> InputSize | None:
    size = raw.get("test_input_size") or raw.get("input_size")
    if size is None:
        return None
    if not (isinstance(size, list | tuple) and len(size) == 3):
        raise CheckpointError(f"the input_size {size!r} is not (channels, height, width)")
    height, width = _side(size[1], "input_size"), _side(size[2], "input_size")
    share = _timm_share(raw)
    mode = raw.get("crop_mode") or "center"
    filter_ = _filter(raw.get("interpolation") or "bicubic")
    resized = math.floor(width / share), math.floor(height / share)
    if mode == "squash":
        return InputSize(to="stretch", width=resized[0], height=resized[1], crop=(width, height), filter=filter_)
    if mode != "center" or width != height:
        raise CheckpointError(f"crop_mode {mode!r} at {width}x{height} px is not understood")
    return InputSize(to="shorter", width=resized[0], height=resized[0], crop=(width, height), filter=filter_)


def _timm_share(raw: Mapping[str, Any]) -> float:
    return _share(raw.get("test_crop_pct") or raw.get("crop_pct") or _TIMM_CROP_SHARE)


def _by_image_size(raw: Mapping[str, Any]) -> InputSize | None:
    size = raw.get("image_size")
    if size is None:
        return None
    width, height = _both_sides(size, "image_size")
    if width != height:
        raise CheckpointError(f"an image_size with two different sides is not understood: {size!r}")
    resized = math.floor(width / CROP_SHARE)
    return InputSize(to="shorter", width=resized, height=resized, crop=(width, height))


def _trained(config: Mapping[str, Any] | None, timm: Mapping[str, Any] | None) -> int | None:
    """Returns the shorter side of the images in training; None if the files say nothing that is understood."""
    try:
        if timm is not None:
            size = timm.get("input_size")
            return min(_side(side, "input_size") for side in size[1:]) if size else None
        size = None if config is None else config.get("image_size")
        return None if size is None else min(_both_sides(size, "image_size"))
    except (CheckpointError, TypeError, ValueError):
        return None


def _trained_range(config: Mapping[str, Any] | None) -> tuple[int, int] | None:
    """Returns the range in `trained_shorter_px`, which the examples of this project write; None without a range."""
    found = None if config is None else config.get("trained_shorter_px")
    try:
        least, largest = sorted(_side(side, "trained_shorter_px") for side in found or ())
    except (CheckpointError, TypeError, ValueError):
        return None
    return least, largest


def _both_sides(size: object, name: str) -> tuple[int, int]:
    """Returns (width, height) of a size: a number, a list [height, width], or an object with height and width."""
    if isinstance(size, Mapping) and set(size) == {"height", "width"}:
        return _side(size["width"], name), _side(size["height"], name)
    if isinstance(size, list | tuple) and len(size) == 2:
        return _side(size[1], name), _side(size[0], name)
    side = _side(size, name)
    return side, side


def _side(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST_PX:
        raise CheckpointError(f"the {name} {value!r} is no side in 1..{_LARGEST_PX} px")
    return value


def _share(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
        raise CheckpointError(f"the crop_pct {value!r} does not lie in (0, 1]")
    return float(value)


def _within(crop: tuple[int, int] | None, width: int, height: int) -> tuple[int, int] | None:
    if crop is not None and (crop[0] > width or crop[1] > height):
        raise CheckpointError(f"a crop of {crop[0]}x{crop[1]} px is larger than the resized image")
    return crop


def _filter(value: object) -> Filter:
    """Returns a filter by its number or its name."""
    by_name: dict[object, Filter] = {name: name for name in _FILTERS.values()}
    name = None if isinstance(value, bool) else (by_name if isinstance(value, str) else _FILTERS).get(value)
    if name is None:
        raise CheckpointError(f"the filter {value!r} is none of Pillow's")
    return name


def _shown(raw: Mapping[str, Any], *names: str) -> str:
    return ", ".join(f"{name} {raw[name]!r}" for name in names if raw.get(name))
