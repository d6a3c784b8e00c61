"""Decodes JPEGs with libjpeg-turbo alone, with the same pixels as through Pillow, in a fraction of the time.

Pillow decodes with the same library, but passes the file on bit by bit and the pixels line by line, and reads the
header in Python. Here the library writes straight into the memory for the pixels. Only files whose result is known to
equal Pillow's are decoded here: files with plain headers (`read_header`), over which the library does not even warn.
Pillow decodes all other files; see docs/design/adr/0014-jpegs-past-pillow.md.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg

_START = b"\xff\xd8\xff"
_APP0, _APP14, _APP15, _START_OF_SCAN = 0xE0, 0xEE, 0xEF, 0xDA
_FRAMES = frozenset((0xC0, 0xC1, 0xC2))  # Huffman-coded: baseline, extended, progressive
_TABLES = frozenset((0xC4, 0xDB, 0xDD, 0xFE))  # Huffman and quantization tables, restart interval, comment
_JFIF, _JFIF_BYTES = b"JFIF\0", 16


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """The header of a plain JPEG: Huffman-coded, 8 bits, grey or three components, colours as in JFIF.

    Attributes:
        width, height: Size in pixels, before EXIF orientation.
        is_bare: True if nothing can turn the image: the header has no EXIF and no XMP.
    """

    width: int
    height: int
    is_bare: bool


def read_header(data: bytes) -> JpegHeader | None:
    """Returns the header of a JPEG that may be decoded here; None for every other file. Never raises.

    Pillow decodes all other JPEGs: CMYK and files with Adobe's marker, arithmetic coding, lossless and 12-bit images, a
    height that comes behind the pixels, and headers with bytes that belong to no segment.
    """
    if data[:3] != _START:
        return None
    size, is_bare = None, True
    at, end = 2, len(data)
    while at + 4 <= end and data[at] == 0xFF:
        marker, length = data[at + 1], data[at + 2] << 8 | data[at + 3]
        behind = at + 2 + length
        if length < 2 or behind > end:
            return None
        if marker in _FRAMES:
            size = None if size else _frame_size(data[at + 4 : behind])
            if size is None:
                return None
        elif marker == _START_OF_SCAN:
            return JpegHeader(*size, is_bare) if size else None
        elif marker == _APP0:
            is_bare = is_bare and length >= _JFIF_BYTES and data[at + 4 : at + 9] == _JFIF
        elif _APP0 < marker <= _APP15 and marker != _APP14:
            is_bare = False
        elif marker not in _TABLES:
            return None
        at = behind
    return None


def _frame_size(frame: bytes) -> tuple[int, int] | None:
    """Returns (width, height) of a frame with one or three components of eight bits; None for other frames."""
    if len(frame) < 6 or frame[0] != 8 or frame[5] not in (1, 3) or len(frame) != 6 + 3 * frame[5]:
        return None
    height, width = frame[1] << 8 | frame[2], frame[3] << 8 | frame[4]
    return (width, height) if width and height else None


def decode_jpeg(
    data: bytes, header: JpegHeader, into: npt.NDArray[np.uint8] | None = None, factor: int = 1
) -> npt.NDArray[np.uint8] | None:
    """Returns the RGB pixels, (height, width, 3) uint8, without EXIF orientation; None if the library warns or fails.

    Args:
        data: Encoded image.
        header: Header of `data`.
        factor: 2, 4 or 8 decodes at this part of the size, each side rounded up, from the lower frequencies alone.
        into: One-dimensional uint8 buffer. If the image fits, the result is a view of the buffer's beginning. The
            beginning may be overwritten even if the result is None.
    """
    width, height = -(-header.width // factor), -(-header.height // factor)
    num_bytes = 3 * width * height
    buffer = into[:num_bytes] if into is not None and into.size >= num_bytes else np.empty(num_bytes, np.uint8)
    try:
        # With `strict`, each warning of the library raises an error, too.
        pixels = simplejpeg.decode_jpeg(
            data, "RGB", min_height=height, min_width=width, min_factor=factor, buffer=buffer, strict=True
        )
    except ValueError:
        return None
    return pixels if pixels.shape == (height, width, 3) else None


def reducing_factor(native: tuple[int, int], resized: tuple[int, int]) -> int:
    """Returns the largest of 8, 4, 2 and 1 by which a size can be reduced so that both sides stay at least `resized`.

    Args:
        native, resized: (width, height) in pixels.
    """
    return next(
        factor
        for factor in (8, 4, 2, 1)
        if factor == 1 or all(side >= factor * to for side, to in zip(native, resized, strict=True))
    )
