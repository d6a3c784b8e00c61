"""The decode step: a chunk of encoded images -> a chunk of pixels; what cannot be decoded becomes a failed record."""

import functools
import time
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.chunk import Chunk, set_columns
from pipeline.decode import FailedImage, SizePolicy, decode_image
from pipeline.decode_isolated import IsolatedDecoder
from pipeline.schema import BASE_COLUMNS, PAYLOAD_COLUMNS

_PLACES = tuple(PAYLOAD_COLUMNS.names)
_CHANGED = ("status", "error_code", "error_message", "width", "height", "net_width", "net_height", "scale")


def decode_chunk(chunk: Chunk, sizes: SizePolicy, *, careful: bool = False) -> Chunk:
    """The chunk with pixels in place of encoded bytes: RGB uint8, HWC, one image after the other, no padding.

    Args:
        sizes: what is done with images that are too small or too large.
        careful: decode in a child process; slower, but a crash is one failed record.
    """
    started = time.perf_counter()
    rows = chunk.rows
    columns: dict[str, list[Any]] = {name: rows.column(name).to_pylist() for name in (*_CHANGED, *_PLACES)}
    encoded = memoryview(chunk.payload)
    decode = _isolated().decode if careful else decode_image
    pixels: list[np.ndarray] = []
    offset = 0
    offsets, lengths = (columns[name] for name in _PLACES)
    for index in range(rows.num_rows):
        start, length = offsets[index], lengths[index]
        offsets[index], lengths[index] = offset, 0
        if columns["status"][index] != "ok":
            continue
        image = decode(bytes(encoded[start : start + length]), sizes)
        columns["width"][index], columns["height"][index] = image.width, image.height
        if isinstance(image, FailedImage):
            columns["status"][index] = "failed"
            columns["error_code"][index] = str(image.failure.code)
            columns["error_message"][index] = image.failure.message
            continue
        columns["net_height"][index], columns["net_width"][index] = image.pixels.shape[:2]
        columns["scale"][index] = image.scale
        lengths[index] = image.pixels.nbytes
        offset += image.pixels.nbytes
        pixels.append(image.pixels)
    arrays = {name: pa.array(columns[name], BASE_COLUMNS.field(name).type) for name in _CHANGED}
    arrays |= {name: pa.array(columns[name], pa.int64()) for name in _PLACES}
    return chunk.with_step("decode_s", started, set_columns(rows, arrays), _join(pixels, offset))


def _join(pixels: list[np.ndarray], num_bytes: int) -> pa.Buffer:
    """All images in one buffer; each is let go as soon as it is copied."""
    joined = np.empty(num_bytes, np.uint8)
    offset = 0
    for index, image in enumerate(pixels):
        joined[offset : offset + image.nbytes] = image.reshape(-1)
        offset += image.nbytes
        pixels[index] = image[:0]
    return pa.py_buffer(joined)


@functools.cache
def _isolated() -> IsolatedDecoder:
    """This worker's child; it ends with the worker, when its input does."""
    return IsolatedDecoder()
