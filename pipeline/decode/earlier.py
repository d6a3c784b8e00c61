"""Finds images of which versions before the second rules of reading gave other pixels than `decode_image` gives.

Those versions opened every file by Pillow alone; `tiff.py` and `jpeg2000.py` say what Pillow gets wrong.
"""

import io
import re
import warnings

import numpy as np
from PIL.TiffImagePlugin import TiffImageFile

from pipeline.decode.jpeg2000 import is_stretched, open_jpeg2000
from pipeline.decode.tiff import gray_values, is_white_zero, open_tiff
from pipeline.decode.unsupported import UnsupportedError

_TIFF = re.compile(rb"II[*+]\0|MM\0[*+]|II\0\*|MM\*\0")
_JPEG2000 = re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n")


def was_decoded_otherwise(data: bytes) -> str | None:
    """Returns a sentence about the wrong pixels that earlier versions gave; None if the pixels are the same.

    The header decides for most images; the pixels decide for layouts that Pillow gets wrong only sometimes.

    Args:
        data: Encoded image that an earlier version decoded without a failure.
    """
    # Silencing warnings is not thread-safe; the caller has one thread that decodes.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if _TIFF.match(data):
                return _tiff_reason(data)
            if _JPEG2000.match(data):
                return "JPEG 2000 of fewer than 7 bits: too dark" if is_stretched(open_jpeg2000(data)) else None
        except UnsupportedError as error:
            return str(error)
        except Exception:  # Broken bytes make Pillow raise anything, and did so before.
            return None
    return None


def _tiff_reason(data: bytes) -> str | None:
    image = open_tiff(data)
    is_number = image.mode.startswith("I") or image.mode == "F"
    if is_number and is_white_zero(image):
        return "TIFF in which 0 is white: inverted"
    plain = TiffImageFile(io.BytesIO(data))
    if plain.tile != image.tile and not np.array_equal(np.asarray(plain), np.asarray(image), equal_nan=is_number):
        return "TIFF of separate planes, halved colours or swapped bytes: read in another layout"
    values = gray_values(image) if is_number else None
    if values is not None and values.dtype == np.uint32 and bool((values.astype(np.int32) < 0).any()):
        return "TIFF of unsigned 32 bits: read as signed"
    return None
