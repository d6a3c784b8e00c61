"""Thumbnails of a few images of a decoded chunk: they travel with its rows as far as the receipt, and into no file."""

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

# Noise of black and white alone takes half of this.
ROOM_BYTES = 2**14
_QUALITY = 80
# Pixels of the image for one of the thumbnail's, along a side.
_ENOUGH = 10


def with_thumbnails(chunk: Chunk, at_most: int) -> Chunk:
    """The decoded chunk with thumbnails of its first images in the draw of the sample (`pipeline.chunks.sample`).

    They are made of what the network sees, and count as decoding.

    Args:
        at_most: how many; 0 gives the chunk itself.
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
    """An RGB image as a JPEG, reduced to a longest side where it is larger; no side vanishes."""
    # Pillow copies what it is given, which may be the largest image there is; ten pixels a side are average enough.
    step = max(1, max(image.shape) // (_ENOUGH * side_px))
    small = Image.fromarray(image[::step, ::step])
    small.thumbnail((side_px, side_px))
    body = io.BytesIO()
    small.save(body, "JPEG", quality=_QUALITY)
    return body.getvalue()


def _filled(jpeg: bytes) -> bytes | None:
    """The JPEG and zeros behind its end, so that the chunk's size does not depend on how a processor rounds pixels."""
    return jpeg.ljust(ROOM_BYTES, b"\0") if len(jpeg) <= ROOM_BYTES else None
