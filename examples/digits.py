"""Handwritten digits as images of any size: the training images of the shipped weights, and the images of the demo.

The digits are the 1,797 that come with scikit-learn, 8x8 cells each. They are drawn larger, as smooth strokes. A random
generator chooses their size, place, slant, colours, sharpness and grain.
"""

import math

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits as load_scikit_digits

LABELS = tuple("0123456789")
HELD_OUT_OF = (4, 25)  # the first 4 of every 25 digits of a class are held out
CELLS = 8
MARGIN = 2  # empty cells around a digit, so that strokes at its edge fade instead of breaking off
# Smallest and largest shorter side of the images in each band, in pixels.
BANDS = ((32, 63), (64, 127), (128, 255), (256, 512))
MAX_SIDE_PX = 512
MAX_ASPECT = 2.0

Pixels = npt.NDArray[np.uint8]
Indexes = npt.NDArray[np.intp]


def load_digits() -> tuple[Pixels, Indexes]:
    """Returns the digits (N, 8, 8), with ink in [0, 255], and their labels (N,)."""
    data = load_scikit_digits()
    return np.rint(data.images * (255 / 16)).astype(np.uint8), data.target.astype(np.intp)


def split(labels: Indexes) -> tuple[Indexes, Indexes]:
    """Returns the positions of the digits to train on, and of the digits that are held out (`HELD_OUT_OF`).

    The digits are in the order of their writers; a writer may be in both parts.
    """
    first, period = HELD_OUT_OF
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        held_out[of_class[np.arange(len(of_class)) % period < first]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def draw_size(band: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """Returns a random (width, height) in pixels, whose shorter side lies in the band.

    The longer side is limited by `MAX_SIDE_PX` and `MAX_ASPECT`.
    """
    first, last = band
    shorter = min(last, int(math.exp(rng.uniform(math.log(first), math.log(last + 1)))))
    longer = min(MAX_SIDE_PX, int(shorter * math.exp(rng.uniform(0, math.log(MAX_ASPECT)))))
    return (shorter, longer) if rng.random() < 0.5 else (longer, shorter)


def render(digit: Pixels, width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """Returns an RGB image of the digit (8, 8), in dark ink on light paper, at a random place."""
    ink = _strokes(digit, width, height, rng)
    pen, paper = rng.integers(0, 100, 3), rng.integers(156, 256, 3)
    grain = rng.uniform(0, 6) * rng.standard_normal((height, width, 1), dtype=np.float32)
    share = np.asarray(ink, dtype=np.float32)[..., None] / 255
    pixels = paper.astype(np.float32) + share * (pen - paper).astype(np.float32) + grain
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _strokes(digit: Pixels, width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """Returns a grey image of the amount of ink at each pixel, in [0, 255]."""
    side = min(width, height) * rng.uniform(0.7, 0.9)
    room = 0.55 * side  # half the digit, and a little for its slant
    stretch = math.exp(rng.uniform(-0.1, 0.1))
    across, down = CELLS / side * stretch, CELLS / side / stretch  # cells a pixel
    slant, turn = rng.uniform(-0.1, 0.1), rng.uniform(-0.06, 0.06)
    left, top = (rng.uniform(room, length - room) for length in (width, height))
    # The map from a pixel to a cell is relative to the digit's middle, and turns, slants and scales.
    cos, sin = math.cos(turn), math.sin(turn)
    xx, xy = across * (cos + slant * sin), across * (-sin + slant * cos)
    yx, yy = down * sin, down * cos
    middle = CELLS / 2 + MARGIN
    to_cells = (xx, xy, middle - xx * left - xy * top, yx, yy, middle - yx * left - yy * top)
    cells = Image.fromarray(np.pad(digit, MARGIN))
    ink = cells.transform((width, height), Image.Transform.AFFINE, to_cells, Image.Resampling.BICUBIC)
    gain = math.exp(rng.uniform(0, math.log(4)))  # a gain of 1 leaves the edges as soft as the enlargement made them
    return ink.point([round(min(255, max(0, 110 + (value - 110) * gain))) for value in range(256)])
