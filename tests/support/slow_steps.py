"""A decode step that takes longer than the real one, asleep."""

import time
from dataclasses import dataclass

from pipeline.chunks.chunk import Chunk
from pipeline.chunks.size_policy import SizePolicy
from pipeline.decode.decode_chunk import decode_chunk


@dataclass(frozen=True)
class SlowDecoding:
    """The real step, after some seconds of sleep for each image."""

    image_s: float

    def __call__(self, chunk: Chunk, sizes: SizePolicy, *, careful: bool = False) -> Chunk:
        started = time.perf_counter()
        time.sleep(self.image_s * chunk.rows.num_rows)
        slept_s = time.perf_counter() - started
        decoded = decode_chunk(chunk, sizes, careful=careful)
        return decoded.with_measured(decode_s=decoded.measured["decode_s"] + slept_s)
