"""The actors of the infer step: Ray Data calls them with chunks of pixels, and they return chunks of answers."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import pyarrow as pa
import ray

from model.network.config import PVTv2Config
from pipeline.chunks.chunk import Chunk, map_chunks
from pipeline.flow.ray_errors import explained
from pipeline.flow.steps import ActorStep
from pipeline.infer.config import InferConfig
from pipeline.infer.device_thread import DeviceThread
from pipeline.infer.isolated import IsolatedInferStep
from pipeline.workers.activity import Notify, at_work
from pipeline.workers.time_limits import CHUNK_S, compute_s, given_up_after


class InferActor:
    """The actor that hosts one infer step. The actor holds several chunks at a time; one thread runs the network."""

    def __init__(
        self,
        make_step: Callable[[memoryview | bytes, InferConfig], ActorStep],
        weights: Any,
        config: InferConfig,
        network: PVTv2Config,
        notify: Notify,
    ) -> None:
        # PyTorch runs in one thread only: with two threads, neither could use the memory that the other has freed.
        self._thread = DeviceThread()
        with explained("infer"):
            step = self._thread.run(lambda: partial(make_step, ray.get(weights), config))
        self._step, self._thread.ahead = step, step.ahead
        self._network, self._device, self._notify = network, config.device, notify
        self._under_way_s = 0.0  # seconds that the submitted chunks without a result may take
        self._under_way, self._free_since = 0, time.perf_counter()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Returns a batch of chunks with answers in place of pixels."""
        with explained("infer"):
            return map_chunks(batch, self._answer)

    def _answer(self, chunk: Chunk) -> Chunk:
        # The clocks of two machines may differ by more than the hand-over took, so the difference may be negative.
        hand_over_s = max(0.0, time.time() - chunk.measured["decode_ended"])
        unpacked = self._step.unpack(chunk)
        computed, wait_s = self._thread.run(partial(self._submit, chunk, unpacked))
        return self._step.pack(computed).with_measured(hand_over_s=hand_over_s, wait_s=wait_s)

    def _submit(self, chunk: Chunk, unpacked: Any) -> Callable[[], tuple[Any, float]]:
        wait_s = 0.0 if self._under_way else time.perf_counter() - self._free_since
        seconds = compute_s(self._network, chunk.net_sizes(), self._device)
        self._under_way_s += seconds
        try:
            with self._in_network(chunk):
                wait = self._step.submit(unpacked)
        except BaseException:
            self._under_way_s -= seconds
            self._free_since = time.perf_counter()
            raise
        self._under_way += 1
        return partial(self._wait, chunk, wait, seconds, wait_s)

    def _wait(self, chunk: Chunk, wait: Callable[[], Any], seconds: float, wait_s: float) -> tuple[Any, float]:
        try:
            with self._in_network(chunk):
                return wait(), wait_s
        finally:
            self._under_way_s -= seconds
            self._under_way -= 1
            self._free_since = time.perf_counter()

    @contextmanager
    def _in_network(self, chunk: Chunk) -> Iterator[None]:
        # A process has one timer and reports one chunk, so both are set in the thread that does one thing at a time.
        # A call in that thread may have to wait for all chunks under way, so the time limit covers all of them.
        with holding_chunk(self._notify, "infer", chunk), given_up_after(CHUNK_S + self._under_way_s):
            yield


class CarefulInferActor:
    """The actor that hosts one `IsolatedInferStep`. Only the child process loads PyTorch; it infers image by image."""

    def __init__(self, _: Any, weights: Any, config: InferConfig, network: PVTv2Config, notify: Notify) -> None:
        self._step = IsolatedInferStep(ray.get(weights), config, network)
        self._notify, self._one_at_a_time = notify, threading.Lock()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Returns a batch of chunks with answers in place of pixels."""
        with explained("infer"):
            return map_chunks(batch, self._answer)

    def _answer(self, chunk: Chunk) -> Chunk:
        with self._one_at_a_time, holding_chunk(self._notify, "infer", chunk):
            return self._step.infer(chunk)


def holding_chunk(notify: Notify, step: str, chunk: Chunk) -> AbstractContextManager[None]:
    """Reports that a step works on a chunk until the block ends."""
    return at_work(notify, step, chunk.header.shard, chunk.header.slice, chunk.header.first_row)
