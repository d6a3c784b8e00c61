"""The largest magnitude in the bytes of a tensor, found without torch.

Without their sign bits, floating-point numbers of one format have the order of their bits as whole numbers, and
infinity and NaN come after all finite numbers.
"""

import math
from typing import NamedTuple

import numpy as np

# Numbers that are compared at a time, so that their copies without sign bits stay in a processor's cache.
_BLOCK = 2**16


class _Format(NamedTuple):
    """The bytes of a number, and how many of its bits are the fraction. The first bit is the sign."""

    num_bytes: int
    fraction_bits: int


_FORMATS = {
    "F64": _Format(8, 52),
    "F32": _Format(4, 23),
    "F16": _Format(2, 10),
    "BF16": _Format(2, 7),
    "F8_E5M2": _Format(1, 2),
    "F8_E4M3": _Format(1, 3),
}
FLOAT_TYPES = frozenset(_FORMATS)
"""The names in safetensors of the floating-point types that a checkpoint may have."""


def largest_magnitude(dtype: str, data: bytes | bytearray) -> float:
    """Returns the largest absolute value of a tensor; NaN if a number is NaN, else infinity if a number is infinite.

    Args:
        dtype: One of `FLOAT_TYPES`.
        data: Bytes of the tensor, little-endian; 0.0 is returned for a tensor without numbers.
    """
    kind = _FORMATS[dtype]
    bits = np.frombuffer(data, f"<u{kind.num_bytes}")
    unsigned = bits.dtype.type(2 ** (8 * kind.num_bytes - 1) - 1)
    blocks = (bits[start : start + _BLOCK] & unsigned for start in range(0, len(bits), _BLOCK))
    most = max((int(block.max()) for block in blocks), default=0)
    return _value(most, kind, has_infinity=dtype != "F8_E4M3")


def _value(bits: int, kind: _Format, *, has_infinity: bool) -> float:
    """Returns the number with some bits, whose sign bit is 0. A format without infinity has NaN for its last bits."""
    exponent_bits = 8 * kind.num_bytes - 1 - kind.fraction_bits
    exponent, fraction = divmod(bits, 2**kind.fraction_bits)
    if exponent == 2**exponent_bits - 1:
        if has_infinity:
            return math.nan if fraction else math.inf
        if fraction == 2**kind.fraction_bits - 1:
            return math.nan
    bias = 2 ** (exponent_bits - 1) - 1
    whole = fraction + (2**kind.fraction_bits if exponent else 0)
    return math.ldexp(whole, max(exponent, 1) - bias - kind.fraction_bits)
