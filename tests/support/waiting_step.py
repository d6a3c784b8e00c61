"""A step in place of the network that ends no chunk before the next one was unpacked."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from pipeline.chunks.chunk import Chunk, set_columns
from pipeline.chunks.columns import CLASSIFY_COLUMNS, PAYLOAD_COLUMNS
from pipeline.infer.config import InferConfig

PATIENCE_S = 20.0


@dataclass(frozen=True)
class WaitingNetwork:
    """Makes `WaitingStep`s for an input of so many chunks."""

    num_chunks: int

    def __call__(self, weights: memoryview | bytes, config: InferConfig) -> "WaitingStep":
        return WaitingStep(self.num_chunks)


class WaitingStep:
    """An infer step (`pipeline.flow.steps.ActorStep`) whose answers are the class 1 for all images.

    Raises where the next chunk does not come, where two chunks are computed at a time, or in more than one thread.
    """

    ahead = 0

    def __init__(self, num_chunks: int) -> None:
        self._num_chunks = num_chunks
        self._num_unpacked = self._num_computed = 0
        self._changed = threading.Condition()
        self._computing = threading.Lock()
        self._thread = threading.get_ident()

    def unpack(self, chunk: Chunk) -> Chunk:
        with self._changed:
            self._num_unpacked += 1
            self._changed.notify_all()
        return chunk

    def submit(self, unpacked: Chunk) -> Callable[[], Chunk]:
        if threading.get_ident() != self._thread or not self._computing.acquire(blocking=False):
            raise RuntimeError("two chunks are computed at a time, or in two threads")
        with self._changed:
            self._num_computed += 1
            wanted = min(self._num_computed + 1, self._num_chunks)
            if not self._changed.wait_for(lambda: self._num_unpacked >= wanted, PATIENCE_S):
                raise RuntimeError(f"chunk {wanted} of {self._num_chunks} was not unpacked while the one before it ran")
        self._computing.release()
        return lambda: unpacked

    def pack(self, computed: Chunk) -> Chunk:
        answers = {"label_id": 1, "label": "one", "score": 1.0, "topk_ids": [1], "topk_scores": [1.0]}
        num_rows = computed.rows.num_rows
        columns = {field.name: pa.array([answers[field.name]] * num_rows, field.type) for field in CLASSIFY_COLUMNS}
        columns["macs"] = pa.array([0] * num_rows, pa.int64())
        rows = set_columns(computed.rows, columns).drop_columns(PAYLOAD_COLUMNS.names)
        return computed.after("rows", 0.0, rows)
