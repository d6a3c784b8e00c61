"""The decode step: a chunk of encoded images becomes a chunk of pixels; an image that cannot be decoded fails."""

import functools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.chunks.chunk import CHUNK_MAX_BYTES, Chunk, set_columns
from pipeline.chunks.columns import BASE_COLUMNS, PAYLOAD_COLUMNS
from pipeline.decode.decode_image import FailedImage, SizePolicy, decode_at_sizes
from pipeline.decode.isolated import IsolatedDecoder

_PLACES = tuple(PAYLOAD_COLUMNS.names)
_CHANGED = ("status", "error_code", "error_message", "width", "height", "net_width", "net_height", "scale")


def decode_chunk(chunk: Chunk, sizes: SizePolicy, *, careful: bool = False) -> Chunk:
    """Returns the chunk with pixels in place of encoded bytes: RGB uint8, HWC, image after image without padding.

    Args:
        chunk: A chunk of encoded images.
        sizes: Policy for images that are too small or too large.
        careful: True decodes in a child process, which is slower; an image that crashes the child process becomes one
            failed record.
    """
    return decode_chunk_at_sizes(chunk, (sizes,), careful=careful)


def decode_chunk_at_sizes(chunk: Chunk, policies: Sequence[SizePolicy], *, careful: bool = False) -> Chunk:
    """Returns the chunk with the pixels of each image at the size of each policy; see `decode_chunk`.

    Each record gets one row for each policy; these rows follow one another in the order of the policies.
    """
    started = time.perf_counter()
    rows = chunk.rows
    if len(policies) > 1:
        rows = rows.take(np.repeat(np.arange(rows.num_rows), len(policies)))
    columns: dict[str, list[Any]] = {name: rows.column(name).to_pylist() for name in (*_CHANGED, *_PLACES)}
    encoded = memoryview(chunk.payload)
    pixels = _Pixels()
    offsets, lengths = (columns[name] for name in _PLACES)
    for first in range(0, rows.num_rows, len(policies)):
        start, length = offsets[first], lengths[first]
        of_record = range(first, first + len(policies))
        images: Sequence[Any] = [None] * len(policies)
        if columns["status"][first] == "ok":
            data = bytes(encoded[start : start + length])
            room = pixels.room if len(policies) == 1 else None
            images = _isolated().decode_at_sizes(data, policies) if careful else decode_at_sizes(data, policies, room)
        for index, image in zip(of_record, images, strict=True):
            offsets[index], lengths[index] = pixels.num_bytes, 0
            if image is None:
                continue
            columns["width"][index], columns["height"][index] = image.width, image.height
            if isinstance(image, FailedImage):
                columns["status"][index] = "failed"
                columns["error_code"][index] = str(image.failure.code)
                columns["error_message"][index] = image.failure.message
                continue
            columns["net_height"][index], columns["net_width"][index] = image.pixels.shape[:2]
            columns["scale"][index] = image.scale
            lengths[index] = image.pixels.nbytes
            pixels.append(image.pixels)
    arrays = {name: pa.array(columns[name], BASE_COLUMNS.field(name).type) for name in _CHANGED}
    arrays |= {name: pa.array(columns[name], pa.int64()) for name in _PLACES}
    return chunk.after("decode", started, set_columns(rows, arrays), pixels.joined())


class _Pixels:
    """The decoded images of a chunk in one buffer, one after the other.

    A decoder may write an image into the free part of the buffer (`room`) before `append` adds the image.
    """

    def __init__(self) -> None:
        # The buffer is larger than most chunks. The system gives no memory to pages that are never written to.
        self._buffer = np.empty(CHUNK_MAX_BYTES, np.uint8)
        self.num_bytes = 0

    @property
    def room(self) -> np.ndarray:
        """The free part of the buffer, behind the last image."""
        return self._buffer[self.num_bytes :]

    def append(self, image: np.ndarray) -> None:
        """Adds the next image: copies the image into `room`, unless a decoder wrote the image there already."""
        needed = self.num_bytes + image.nbytes
        if not np.may_share_memory(self._buffer, image):
            if needed > self._buffer.size:
                grown = np.empty(max(needed, 2 * self._buffer.size), np.uint8)
                grown[: self.num_bytes] = self._buffer[: self.num_bytes]
                self._buffer = grown
            self._buffer[self.num_bytes : needed] = image.reshape(-1)
        self.num_bytes = needed

    def joined(self) -> pa.Buffer:
        """Returns all images as one buffer."""
        return pa.py_buffer(self._buffer[: self.num_bytes])


@functools.cache
def _isolated() -> IsolatedDecoder:
    """Returns the decoder of this worker, whose child process ends when the worker ends."""
    return IsolatedDecoder()
