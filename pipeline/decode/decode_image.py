"""Decodes one image: encoded bytes become RGB pixels at the size that the network sees, or a failure.

The first bytes of an image say which format it has; its name does not matter. ICC profiles are ignored: all values
count as sRGB. Of an animation, or of a document with many pages, the first image is decoded.
"""

import io
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, features

from pipeline.chunks.bugs import explain
from pipeline.chunks.failures import ErrorCode, Failure
from pipeline.chunks.size_policy import NetSize, SizePolicy, net_size
from pipeline.decode.jpeg import JpegHeader, decode_jpeg, read_header, reducing_factor
from pipeline.decode.open_image import MENDED, check_whole, open_image, orientation_of, sniff
from pipeline.decode.to_rgb import to_rgb
from pipeline.decode.unsupported import UnsupportedError, unsupported_name

# A Pillow that was built with another JPEG library rounds differently; then Pillow decodes every JPEG.
_HAS_SAME_JPEG_LIBRARY = features.check_feature("libjpeg_turbo")

# Errors by which a plugin says that an image is whole and only its layout is not known.
_NOT_KNOWN = re.compile(r"Unsupported BMP (?:pixel depth|bitfields layout|compression)")
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedImage:
    """One image as the network sees it.

    Attributes:
        pixels: RGB pixels of shape (net_height, net_width, 3), uint8, contiguous and read-only.
        width, height: Native size in pixels, with the EXIF orientation applied.
        net_width, net_height: Size of `pixels`.
        scale: Factor from the native size to the size of `pixels`; 1.0 for an image that was not resized.
    """

    pixels: npt.NDArray[np.uint8]
    width: int
    height: int
    net_width: int
    net_height: int
    scale: float


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedImage:
    """An image without pixels.

    Attributes:
        failure: Error code and message.
        width, height: Native size in pixels, with the EXIF orientation applied; None if the size is not known.
    """

    failure: Failure
    width: int | None = None
    height: int | None = None


def probe_size(data: bytes, *, pillow_only: bool = False) -> tuple[int, int] | None:
    """Returns (width, height) in pixels from the header alone, before EXIF orientation; None without a size.

    The function never raises.

    Args:
        data: Encoded image, or its first bytes.
        pillow_only: True returns no size of an image that Pillow by itself does not open, although the image is
            decoded. Outputs under the first rules of reading were cut into slices by these sizes.
    """
    if (header := read_header(data)) is not None:
        return header.width, header.height
    image_format, plugin = sniff(data)
    if plugin is None:
        return None
    if image_format == "ICO":  # Pillow would decode the icon; its directory has one byte for each side, 0 for 256.
        entries = range(6, min(6 + 16 * data[4], len(data) - 1), 16) if len(data) > 4 else ()
        return max(((data[at] or 256, data[at + 1] or 256) for at in entries), key=math.prod, default=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return plugin(io.BytesIO(data)).size
        except Exception:  # Only Pillow's code runs here. Without a size, the decode step says what is wrong.
            if pillow_only or image_format not in MENDED:
                return None
        try:
            return open_image(data, image_format, plugin).size
        except Exception:  # As above.
            return None


def decode_image(
    data: bytes, policy: SizePolicy, into: npt.NDArray[np.uint8] | None = None
) -> DecodedImage | FailedImage:
    """Returns the pixels of an image, or a failure; the function neither raises nor warns, whatever the bytes are.

    The whole image is decoded, converted to RGB (`pipeline.decode.to_rgb`), resized with antialiasing if the policy
    says so, and turned as EXIF says.

    Args:
        data: Encoded image.
        policy: Policy for images that are too small or too large.
        into: One-dimensional uint8 buffer. If the image fits and can be decoded straight into memory, its pixels are
            written to the beginning of the buffer.
    """
    return decode_at_sizes(data, (policy,), into)[0]


def decode_at_sizes(
    data: bytes, policies: Sequence[SizePolicy], into: npt.NDArray[np.uint8] | None = None
) -> list[DecodedImage | FailedImage]:
    """Returns an image at the size of each policy, in the order of the policies: what `decode_image` returns for each.

    The image is decoded once. With several policies it is decoded whole, whatever their `jpeg_decoding` is.

    Args:
        into: As in `decode_image`; None if there are several policies.
    """
    if not data:
        return [FailedImage(failure=Failure(ErrorCode.DECODE_EMPTY, "the image has no bytes")) for _ in policies]
    header = read_header(data) if _HAS_SAME_JPEG_LIBRARY else None
    if header is not None and header.is_bare and (quick := _past_pillow(data, header, 1, policies, into)) is not None:
        return quick
    image_format, plugin = sniff(data)
    if plugin is None:
        name = unsupported_name(data)
        message = f"{name} is not decoded" if name else f"begins as no image that is decoded: {data[:12]!r}"
        return [FailedImage(failure=Failure(ErrorCode.DECODE_UNSUPPORTED, message)) for _ in policies]
    native = (0, 0)
    # Silencing warnings is not thread-safe; a decode task is a process with one thread.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = open_image(data, image_format, plugin)
            if header is not None and not header.is_bare:
                quick = _past_pillow(data, header, orientation_of(image), policies, into)
                if quick is not None:
                    return quick
            native = _turned(image.size, orientation_of(image) if "exif" in image.info else 1)
            refused = [_refused(native, policy) for policy in policies]
            if all(refused):
                return [failed for failed in refused if failed]
            check_whole(image, data)
            rgb = to_rgb(image)
            # Read the orientation again after the whole file: the EXIF of a PNG may stand behind its pixels.
            orientation = orientation_of(image)
            native = _turned(rgb.size, orientation)
            return [_at_size(rgb, orientation, native, policy) for policy in policies]
        except UnsupportedError as error:
            failure = Failure(ErrorCode.DECODE_UNSUPPORTED, str(error))
        except (Image.DecompressionBombError, MemoryError) as error:
            failure = Failure(ErrorCode.IMAGE_TOO_LARGE, explain(error, image_format))
        except Exception as error:  # Broken bytes make Pillow raise anything; the record fails.
            failure = _failure(error, image_format)
    return [_failed(failure, native) for _ in policies]


def _past_pillow(
    data: bytes,
    header: JpegHeader,
    orientation: int,
    policies: Sequence[SizePolicy],
    into: npt.NDArray[np.uint8] | None,
) -> list[DecodedImage | FailedImage] | None:
    """Returns a JPEG decoded by libjpeg-turbo alone; None if Pillow must decode the JPEG, or a policy rejects it."""
    native = _turned((header.width, header.height), orientation)
    sizes = [size for policy in policies if isinstance(size := net_size(*native, policy), NetSize)]
    if len(sizes) < len(policies):
        return None
    is_straight = orientation == 1 and all(native == size.resized == (size.width, size.height) for size in sizes)
    factor = 1
    if len(policies) == 1 and policies[0].jpeg_decoding == "reduced":
        factor = reducing_factor(native, sizes[0].resized)
    pixels = decode_jpeg(data, header, into if is_straight else None, factor)
    if pixels is None:
        return None
    if is_straight:
        return [_decoded(pixels, native, size) for size in sizes]
    rgb = Image.fromarray(pixels)
    # Sides of a reduced image are rounded up, so that its last pixels may reach beyond the image.
    ends = (header.width / factor, header.height / factor)
    return [_decoded(np.asarray(_resize_and_turn(rgb, size, orientation, ends)), native, size) for size in sizes]


def _at_size(
    rgb: Image.Image, orientation: int, native: tuple[int, int], policy: SizePolicy
) -> DecodedImage | FailedImage:
    size = net_size(*native, policy)
    if not isinstance(size, NetSize):
        return _failed(size, native)
    return _decoded(np.asarray(_resize_and_turn(rgb, size, orientation)), native, size)


def _refused(native: tuple[int, int], policy: SizePolicy) -> FailedImage | None:
    size = net_size(*native, policy)
    return None if isinstance(size, NetSize) else _failed(size, native)


def _failed(failure: Failure, native: tuple[int, int]) -> FailedImage:
    known = min(native) > 0 and max(native) < 2**31  # The columns hold no larger numbers.
    return FailedImage(failure=failure, width=native[0] if known else None, height=native[1] if known else None)


def _decoded(pixels: npt.NDArray[np.uint8], native: tuple[int, int], size: NetSize) -> DecodedImage:
    return DecodedImage(
        pixels=pixels,
        width=native[0],
        height=native[1],
        net_width=size.width,
        net_height=size.height,
        scale=size.scale,
    )


def _failure(error: Exception, image_format: str) -> Failure:
    """Returns the failure of an image over whose bytes Pillow raised an error."""
    if _NOT_KNOWN.match(str(error)):
        return Failure(ErrorCode.DECODE_UNSUPPORTED, f"{image_format} of this layout is not decoded ({error})")
    message = explain(error, image_format)
    return Failure(ErrorCode.DECODE_CORRUPT, message if str(error) else f"{message} a part of the image is missing")


def _turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return size[::-1] if orientation >= 5 else size


def _resize_and_turn(
    rgb: Image.Image, size: NetSize, orientation: int, ends: tuple[float, float] | None = None
) -> Image.Image:
    """Returns the image at the size that the network sees: resized, then turned upright, then cropped.

    Args:
        ends: Width and height of the part of `rgb` that is the image; None for all of it.
    """
    before_turn = _turned(size.resized, orientation)
    if rgb.size != before_turn:
        box = None if ends is None else (0, 0, *ends)
        rgb = rgb.resize(before_turn, Image.Resampling[size.filter.upper()], box)
    if orientation in _TRANSPOSE:
        rgb = rgb.transpose(_TRANSPOSE[orientation])
    if size.cropped_from is None:
        return rgb
    left, top = (round((whole - part) / 2) for whole, part in zip(rgb.size, (size.width, size.height), strict=True))
    return rgb.crop((left, top, left + size.width, top + size.height))
