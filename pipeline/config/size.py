"""`--size`: which size an image has for the network, asked in words and resolved with the checkpoint."""

import logging
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

from model.checkpoints.input_size import CROP_SHARE, SizeAdvice
from pipeline.chunks.size_policy import MAX_SIDE_PX, MIN_SIDE_PX, Resize, SizePolicy
from pipeline.errors import ConfigError, WeightsError

logger = logging.getLogger(__name__)

_Word = Literal["native", "checkpoint"]
_Rule = Literal["shorter", "longer", "pixels", "square", "stretch"]
FORMS = "native, checkpoint, shorter:N, longer:N, pixels:N, square:N or stretch:N"


@dataclass(frozen=True)
class SizeRequest:
    """A value of `--size`.

    Attributes:
        kind: `native` keeps the size of each image. `checkpoint` does what the checkpoint says. `shorter` and `longer`
            give a side in pixels, `pixels` the most pixels of an image, `square` the side of a square at the centre,
            and `stretch` both sides.
        number: Number of pixels; None for `native` and `checkpoint`.
    """

    kind: _Word | _Rule = "native"
    number: int | None = None

    def __str__(self) -> str:
        return self.kind if self.number is None else f"{self.kind}:{self.number}"


def parse_size(text: str) -> SizeRequest:
    """Returns the request in a value of `--size`.

    Raises:
        ConfigError: The value has no known form, or its number cannot work.
    """
    kind, colon, digits = text.partition(":")
    if not colon and kind in get_args(_Word):
        return SizeRequest(kind)  # type: ignore[arg-type]
    if kind not in get_args(_Rule) or not digits.isascii() or not digits.isdecimal():
        raise ConfigError(f"--size must be {FORMS}, not {text!r}")
    request = SizeRequest(kind, int(digits))  # type: ignore[arg-type]
    try:
        if request.kind == "pixels":
            _policy(request, SizePolicy(), SizeAdvice())
        else:
            _resize(request, SizeAdvice())
    except ValueError as error:
        raise ConfigError(f"--size {text}: {error}") from error
    return request


def resolve_size(request: SizeRequest | None, sizes: SizePolicy, advice: SizeAdvice, weights: str) -> SizePolicy:
    """Returns the policy that a request asks for, within the limits of another policy.

    `square:N` takes the share that is cropped and the filter from the checkpoint, else 0.9 and bicubic. The other forms
    resize bicubically, `stretch:N` bilinearly, as the image processor of transformers' PVT does.

    Args:
        request: None changes nothing.
        sizes: Rules for small and large images.
        advice: Sizes that the checkpoint names.
        weights: Name of the checkpoint in messages.

    Raises:
        ConfigError: The request and the limits contradict each other.
        WeightsError: `checkpoint` is asked for, and the checkpoint says nothing, or nothing that can be followed.
    """
    if request is None:
        return sizes
    if request.kind == "checkpoint":
        if advice.problem is not None:
            raise WeightsError(f"--size checkpoint: {weights}: {advice.problem}; give the size itself: {FORMS}")
        if advice.resize is None:
            raise WeightsError(
                f"--size checkpoint: {weights} does not say which size its images had; published PVTv2 were trained at "
                "224 px, which --size square:224 gives"
            )
    if sizes.preprocess != "native" and request.kind != "native":
        raise ConfigError(f"--size {request} and --preprocess {sizes.preprocess} contradict each other; give one")
    try:
        policy = _policy(request, sizes, advice)
    except ValueError as error:
        text = f"--size {request}: {error}; see --max-image-pixels"
        kind = WeightsError if request.kind == "checkpoint" else ConfigError
        raise kind(text) from error
    if policy.resize is not None:
        logger.info(
            "size.chosen size=%s resize=%s by=%r trained_px=%s",
            *(request, asdict(policy.resize), advice.source if request.kind == "checkpoint" else "", advice.trained_px),
        )
    return policy


def _policy(request: SizeRequest, sizes: SizePolicy, advice: SizeAdvice) -> SizePolicy:
    if request.kind == "pixels" and request.number is not None:
        return replace(sizes, max_image_pixels=request.number, large_images="downscale")
    return replace(sizes, resize=_resize(request, advice))


def _resize(request: SizeRequest, advice: SizeAdvice) -> Resize | None:
    side = request.number
    if request.kind == "checkpoint" and advice.resize is not None:
        return Resize(**asdict(advice.resize))
    if side is None:
        return None
    if not MIN_SIDE_PX <= side <= MAX_SIDE_PX:
        raise ValueError(f"a side must lie in {MIN_SIDE_PX}..{MAX_SIDE_PX} px, not {side}")
    match request.kind:
        case "square":
            resized = int(side / (advice.crop_share or CROP_SHARE))
            filter_ = advice.filter or "bicubic"
            return Resize(to="shorter", width=resized, height=resized, crop=(side, side), filter=filter_)
        case "stretch":
            return Resize(to="stretch", width=side, height=side, filter="bilinear")
        case "shorter" | "longer":
            return Resize(to=request.kind, width=side, height=side)
    return None
