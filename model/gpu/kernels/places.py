"""Functions that several kernels share: the look-up of a map in the tables of `model/gpu/tables.py`, and the GELU."""

import triton
import triton.language as tl


@triton.jit
def map_of(images, image):
    """Returns the first row, the height and the width of an image's map."""
    return tl.load(images + 3 * image), tl.load(images + 3 * image + 1), tl.load(images + 3 * image + 2)


@triton.jit
def gelu(x):
    """Returns the exact GELU (with erf) of float32."""
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
