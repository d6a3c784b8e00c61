"""Opens JPEG 2000 images of which Pillow gives the right pixels.

Pillow rounds samples of more than eight bits up beyond 255, and white becomes black. It shifts samples of fewer bits,
so that white stays below 255. Both follow from the depths that the codestream states.
"""

import io
import struct

from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

from pipeline.decode.unsupported import UnsupportedError

_CODESTREAM = b"\xff\x4f\xff\x51"
_NUM_COMPONENTS_AT, _COMPONENTS_AT, _COMPONENT_BYTES = 40, 42, 3  # behind the start of the codestream
_MOST_COMPONENTS = 4
_BITS = "bits_per_sample"
# Shifted samples of seven bits are as near to the truth as rounding comes.
_ENOUGH_BITS = 7


def open_jpeg2000(data: bytes) -> Jpeg2KImageFile:
    """Returns the opened image.

    Raises:
        UnsupportedError: Pillow would give wrong pixels, or none.
        Exception: The bytes are broken.
    """
    at = data.find(_CODESTREAM)
    depths = _depths(data, at) if at >= 0 else []
    if len(depths) > _MOST_COMPONENTS:
        raise UnsupportedError(f"JPEG 2000 of {len(depths)} components")
    most = max(depths, default=8)
    if most > 16 or (most > 8 and len(depths) > 1):
        raise UnsupportedError(f"JPEG 2000 of {len(depths)} components of {most} bits")
    image = Jpeg2KImageFile(io.BytesIO(data))
    if (most > 8) != image.mode.startswith("I"):
        raise UnsupportedError(f"JPEG 2000 of {most} bits")  # its box and its codestream state different depths
    if min(depths, default=8) < _ENOUGH_BITS:
        if len(depths) != len(image.getbands()) or image.mode in ("P", "PA"):
            raise UnsupportedError("JPEG 2000 with a palette of fewer than 256 colours")
        image.info[_BITS] = depths
    return image


def is_stretched(image: ImageFile) -> bool:
    """Returns whether `in_full_range` changes the samples of an image of `open_jpeg2000`."""
    return _BITS in image.info


def in_full_range(image: ImageFile) -> Image.Image:
    """Returns a decoded image of `open_jpeg2000`, with samples from 0 to 255."""
    depths = image.info.get(_BITS)
    if depths is None:
        return image
    return image.point([_in_full_range(value, bits) for bits in depths for value in range(256)])


def _in_full_range(value: int, bits: int) -> int:
    return value if bits >= _ENOUGH_BITS else round((value >> (8 - bits)) * 255 / ((1 << bits) - 1))


def _depths(data: bytes, at: int) -> list[int]:
    """Returns the bits of each component's samples."""
    if at + _COMPONENTS_AT > len(data):
        return []
    (num_components,) = struct.unpack_from(">H", data, at + _NUM_COMPONENTS_AT)
    sizes = data[at + _COMPONENTS_AT : at + _COMPONENTS_AT + _COMPONENT_BYTES * num_components : _COMPONENT_BYTES]
    return [(size & 0x7F) + 1 for size in sizes]
