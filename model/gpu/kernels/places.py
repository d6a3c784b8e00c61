"""What a program reads of the tables of `model/gpu/tables.py`."""

import triton
import triton.language as tl


@triton.jit
def map_of(images, image):
    """First row, height and width of an image's map."""
    return tl.load(images + 3 * image), tl.load(images + 3 * image + 1), tl.load(images + 3 * image + 2)


@triton.jit
def gelu(x):
    """Of float32, exactly: with erf."""
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
