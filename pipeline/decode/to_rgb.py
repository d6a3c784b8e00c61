"""Converts images of every mode that Pillow decodes into RGB with eight bits for each channel."""

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ImageFile import ImageFile

from pipeline.decode.jpeg2000 import in_full_range
from pipeline.decode.tiff import gray_values, is_white_zero

_KEY_SCALE = {"L;2": 85, "L;4": 17}


def to_rgb(opened: ImageFile) -> Image.Image:
    """Returns the decoded image in RGB; ICC profiles are ignored.

    | mode                             | becomes                                                              |
    | -------------------------------- | -------------------------------------------------------------------- |
    | RGB                              | itself                                                               |
    | 1, L                             | grey                                                                 |
    | P                                | the palette's colours                                                |
    | RGBA RGBa LA La PA, P with alpha | composited on white                                                  |
    | 1, L, I;16 or RGB with a key     | the key colour becomes white (16-bit RGB: compared by its high byte) |
    | I;16 in any byte order, I, F     | grey, scaled as by `gray_to_uint8`                                   |
    | CMYK YCbCr HSV                   | by Pillow's arithmetic                                               |
    | LAB                              | sRGB, by LittleCMS                                                   |

    Raises:
        Exception: The bytes are broken; Pillow may raise any class of exception.
    """
    args = opened.tile[0].args if opened.tile else None  # Decoding removes the tiles.
    raw_mode = args if isinstance(args, str) else args[0] if args else None
    opened.load()
    image = in_full_range(opened)
    key = image.info.get("transparency")
    if image.mode.startswith("I") or image.mode == "F":
        values = gray_values(opened)
        gray = gray_to_uint8(values, max_value=4095 if raw_mode == "I;12" else 65535)
        if is_white_zero(opened):
            gray = 255 - gray
        if isinstance(key, int):
            gray[values == key] = 255
        return Image.fromarray(gray).convert("RGB")
    # Pillow keeps the transparent colour at the depth of the file, but gives the pixels eight bits.
    if key is not None and raw_mode == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in key)
    elif key is not None and raw_mode in _KEY_SCALE:
        image.info["transparency"] = key * _KEY_SCALE[raw_mode]
    if image.has_transparency_data:
        # Pillow converts La to LA alone.
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = Image.new("RGB", rgba.size, "white")
        white.paste(rgba, mask=rgba)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def gray_to_uint8(values: npt.NDArray[np.generic], max_value: int = 65535) -> npt.NDArray[np.uint8]:
    """Returns grey values in [0, 255] of the same shape, each rounded to the nearest whole number.

    | dtype   | values                   | becomes                                   |
    | ------- | ------------------------ | ----------------------------------------- |
    | uint16  | any                      | v / max_value * 255 (v / 257 for 16 bits) |
    | int32   | all within 0..65535      | v / 257                                   |
    | int32   | else                     | (v - min) / (max - min) * 255             |
    | uint32  | any is 2^31 or more      | v / (2^32 - 1) * 255                      |
    | uint32  | else                     | as int32                                  |
    | float32 | all within 0..1          | v * 255                                   |
    | float32 | else all within 0..255   | v                                         |
    | float32 | else all within 0..65535 | v / 257                                   |
    | float32 | else                     | (v - min) / (max - min) * 255             |

    A float that is not finite becomes 0 and does not count for the choice of the rule. If the last rule meets an image
    of a single value, all pixels become 0.

    Args:
        values: Grey values.
        max_value: The uint16 value that is white: 4095 for a 12-bit image.
    """
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        table = np.minimum((np.arange(65536) * 510 + max_value) // (2 * max_value), 255).astype(np.uint8)
        return table[values]
    known = np.isfinite(values)
    if not known.any():
        return np.zeros(values.shape, np.uint8)
    low, high = float(values[known].min()), float(values[known].max())
    if low >= 0 and high <= 65535:
        offset = 0.0
        whitest = 65535.0 if values.dtype.kind in "iu" or high > 255 else 255.0 if high > 1 else 1.0
    elif values.dtype.kind == "u" and high >= 2**31:
        offset, whitest = 0.0, 2.0**32 - 1
    else:
        offset, whitest = low, (high - low) or 1.0
    # float64: the difference of two float32 may overflow a float32.
    scaled = np.where(known, values, offset).astype(np.float64)
    scaled -= offset
    scaled *= 255  # before the division: x * (255 / y) would put some halves below the half
    scaled /= whitest
    scaled[~known] = 0
    return (scaled + 0.5).astype(np.uint8)
