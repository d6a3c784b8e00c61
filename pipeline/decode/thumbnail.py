"""Makes thumbnails of a few images of a decoded chunk, for the run's page.

The chunk carries the thumbnails to the collector, and the collector's receipt carries them to the driver. No output
file contains thumbnails.
"""

import io
import time
from heapq import nsmallest

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from pipeline.chunks.chunk import Chunk, set_columns
from pipeline.chunks.columns import SAMPLE_COLUMNS
from pipeline.chunks.sample import rank

SIDE_PX = 96
"""Longest side of a thumbnail."""

# Size of each thumbnail in a chunk. Even an image of black and white noise takes only half of this size.
ROOM_BYTES = 2**14
_QUALITY = 80
# Pixels of the image that are averaged for one pixel of the thumbnail, along a side.
_ENOUGH = 10


def with_thumbnails(chunk: Chunk, at_most: int) -> Chunk:
    """Returns the decoded chunk with thumbnails of the images that have the smallest ranks (`pipeline.chunks.sample`).

    Thumbnails show the pixels that the network sees. Making thumbnails counts as decoding in the measurements.

    Args:
        chunk: A chunk of pixels.
        at_most: Largest number of thumbnails; 0 returns the chunk itself.
    """
    if not at_most:
        return chunk
    began = time.perf_counter() - chunk.measured["decode_s"]
    names = ("image_id", "status", "payload_offset", "net_height", "net_width")
    ids, status, offsets, heights, widths = (chunk.rows.column(name).to_pylist() for name in names)
    pixels = np.frombuffer(chunk.payload, np.uint8)
    thumbnails: list[bytes | None] = [None] * len(ids)
    ok = (index for index, value in enumerate(status) if value == "ok")
    for index in nsmallest(at_most, ok, key=lambda index: rank(ids[index])):
        height, width = heights[index], widths[index]
        image = pixels[offsets[index] :][: height * width * 3].reshape(height, width, 3)
        thumbnails[index] = _filled(thumbnail(image))
    columns = {field.name: pa.array(thumbnails, field.type) for field in SAMPLE_COLUMNS}
    return chunk.after("decode", began, set_columns(chunk.rows, columns), chunk.payload)


def thumbnail(image: npt.NDArray[np.uint8], side_px: int = SIDE_PX) -> bytes:
    """Returns an RGB image as a JPEG whose longest side is at most `side_px`; every side keeps at least one pixel."""
    # Pillow copies its input, which may be a huge image; ten pixels along a side are enough for an average.
    step = max(1, max(image.shape) // (_ENOUGH * side_px))
    small = Image.fromarray(image[::step, ::step])
    small.thumbnail((side_px, side_px))
    body = io.BytesIO()
    small.save(body, "JPEG", quality=_QUALITY)
    return body.getvalue()


def _filled(jpeg: bytes) -> bytes | None:
    """Returns the JPEG padded with zeros to `ROOM_BYTES`; None for a larger JPEG.

    Without padding, the size of a chunk would depend on how a processor rounds pixels.
    """
    return jpeg.ljust(ROOM_BYTES, b"\0") if len(jpeg) <= ROOM_BYTES else None
