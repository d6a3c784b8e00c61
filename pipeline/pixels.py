"""Grey values of more than eight bits, scaled to eight. Pillow's own conversion would clip them."""

import numpy as np
import numpy.typing as npt


def gray_to_uint8(values: npt.NDArray[np.generic], max_value: int = 65535) -> npt.NDArray[np.uint8]:
    """Grey values in [0, 255], same shape, each rounded to the nearest.

    | dtype   | values                   | becomes                                   |
    | ------- | ------------------------ | ----------------------------------------- |
    | uint16  | any                      | v / max_value * 255 (v / 257 for 16 bits) |
    | int32   | all within 0..65535      | v / 257                                   |
    | int32   | else                     | (v - min) / (max - min) * 255             |
    | float32 | all within 0..1          | v * 255                                   |
    | float32 | else all within 0..255   | v                                         |
    | float32 | else all within 0..65535 | v / 257                                   |
    | float32 | else                     | (v - min) / (max - min) * 255             |

    A float that is not finite becomes 0 and has no say in which rule is taken. Where the last rule meets an image of
    one value, all of it becomes 0.

    Args:
        max_value: what the whitest uint16 is: 4095 for a 12-bit image.
    """
    if values.dtype.kind == "u":
        table = np.minimum((np.arange(65536) * 510 + max_value) // (2 * max_value), 255).astype(np.uint8)
        return table[values]
    known = np.isfinite(values)
    if not known.any():
        return np.zeros(values.shape, np.uint8)
    low, high = float(values[known].min()), float(values[known].max())
    if low >= 0 and high <= 65535:
        offset = 0.0
        whitest = 65535.0 if values.dtype.kind == "i" or high > 255 else 255.0 if high > 1 else 1.0
    else:
        offset, whitest = low, (high - low) or 1.0
    # float64: the difference of two float32 may overflow a float32.
    scaled = np.where(known, values, offset).astype(np.float64)
    scaled -= offset
    scaled *= 255 / whitest
    scaled[~known] = 0
    return (scaled + 0.5).astype(np.uint8)
