"""Steps that replace real ones while the work around them is measured: a network that sleeps, and no decoding."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from pipeline.chunks.chunk import Chunk, set_columns
from pipeline.chunks.columns import CLASSIFY_COLUMNS, PAYLOAD_COLUMNS
from pipeline.chunks.measures import process_number
from pipeline.chunks.size_policy import SizePolicy
from pipeline.infer.config import InferConfig

BLANK_PX = 64


@dataclass(frozen=True)
class SleepingNetwork:
    """Makes infer steps that sleep and give fixed answers.

    The sleep takes the place of an accelerator's work, which needs no core either.

    Attributes:
        image_s: Seconds of sleep for each image.
    """

    image_s: float

    def __call__(self, weights: memoryview | bytes, config: InferConfig) -> "SleepingStep":
        return SleepingStep(self.image_s)


class SleepingStep:
    """An infer step (`pipeline.flow.steps.ActorStep`) without a network."""

    ahead = 0

    def __init__(self, image_s: float) -> None:
        self._image_s = image_s

    def unpack(self, chunk: Chunk) -> tuple[Chunk, list[np.ndarray]]:
        """Returns the chunk, and views of the pixels of each readable image, as the real step takes them."""
        pixels = np.frombuffer(chunk.payload, np.uint8)
        places = chunk.rows.select(PAYLOAD_COLUMNS.names).to_pydict().values()
        images = [pixels[offset : offset + length] for offset, length in zip(*places, strict=True) if length]
        return chunk, images

    def submit(self, unpacked: tuple[Chunk, list[np.ndarray]]) -> Callable[[], tuple[Chunk, float]]:
        """Sleeps for the images; returns a function that returns the chunk and the seconds of sleep."""
        started = time.perf_counter()
        if self._image_s:
            time.sleep(self._image_s * len(unpacked[1]))
        slept_s = time.perf_counter() - started
        return lambda: (unpacked[0], slept_s)

    def pack(self, computed: tuple[Chunk, float]) -> Chunk:
        """Returns the chunk with class 0 and the score 1.0 in the row of each readable image."""
        chunk, seconds = computed
        good = [status == "ok" for status in chunk.rows.column("status").to_pylist()]
        answers = {"label_id": 0, "label": "fixed", "score": 1.0, "topk_ids": [0], "topk_scores": [1.0]}
        columns = {
            field.name: pa.array([answers[field.name] if ok else None for ok in good], field.type)
            for field in CLASSIFY_COLUMNS
        }
        columns["macs"] = pa.array([0] * len(good), pa.int64())
        rows = set_columns(chunk.rows, columns).drop_columns(PAYLOAD_COLUMNS.names)
        ended = {"compute_ended": time.time(), "compute_process": process_number()}
        return chunk.after("rows", time.perf_counter(), rows, compute_s=seconds, **ended)


def no_decoding(chunk: Chunk, sizes: SizePolicy, *, careful: bool = False) -> Chunk:
    """Returns the chunk with black images of 64x64 px in place of its images."""
    started = time.perf_counter()
    num_bytes = 3 * BLANK_PX**2
    count = chunk.rows.num_rows
    columns = {
        name: pa.array([BLANK_PX] * count, pa.int32()) for name in ("width", "height", "net_width", "net_height")
    }
    columns["scale"] = pa.array([1.0] * count, pa.float32())
    columns["payload_offset"] = pa.array(np.arange(count, dtype=np.int64) * num_bytes)
    columns["payload_length"] = pa.array([num_bytes] * count, pa.int64())
    payload = pa.py_buffer(np.zeros(num_bytes * count, np.uint8))
    return replace(chunk.after("decode", started, set_columns(chunk.rows, columns)), payload=payload)
