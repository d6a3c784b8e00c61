"""The one chained expression: plan rows -> read -> decode -> infer -> sink, on Ray Data.

Nothing here is a retry policy but the bounds: every Ray retry is finite, a block whose task fails for good is dropped,
and the driver runs again what was not published (see `run.py`).
"""

import logging
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.data.exceptions import SystemException

from model.network.config import PVTv2Config
from pipeline.account.ray_operators import Operators, operators_of
from pipeline.chunks.chunk import Chunk, map_chunks
from pipeline.chunks.size_policy import SizePolicy
from pipeline.cluster.cluster import NO_ROOM_ERRORS
from pipeline.cluster.processors import Processors
from pipeline.decode.thumbnail import with_thumbnails
from pipeline.flow.collectors import SliceDatasink
from pipeline.flow.steps import NETWORK, ActorStep, DecodeStep, Steps
from pipeline.infer.device_thread import DeviceThread
from pipeline.infer.isolated import IsolatedInferStep
from pipeline.plan.planned_shard import from_table
from pipeline.read.read_shard import ReadConfig, read_shard
from pipeline.settings.job_config import InferConfig
from pipeline.workers.activity import Tell, at_work
from pipeline.workers.time_limits import CHUNK_S, compute_s, given_up_after

logger = logging.getLogger(__name__)

# Chunks are bundled into blocks, and so into tasks, up to this size: large enough that a task of thumbnails is worth
# its overhead, small enough that photos flow on at once.
TARGET_BLOCK_BYTES = 8 * 2**20
# Blocks that may fail in one pass before the pass is given up. They are found missing at the close; the bound only
# keeps a broken installation from grinding through the whole input.
MAX_ERRORED_BLOCKS = 32
_TASK_RETRIES = 2
# One chunk in each part of the step, and those that are submitted ahead.
_CALLS_PER_ACTOR = {"cpu": 2, "cuda": 4}
_NAMES_AN_ERROR = re.compile(r"[\w.]+(Error|Exception)\b.*: ")


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """What the steps of one pass need.

    Attributes:
        weights: reference to the checkpoint's bytes in Ray's object store, which moves them to each node once.
        network: of the weights.
        careful: give every image to child processes that may die.
        tell: called by every process of every step with what it holds.
        steps: what decodes and what infers, where it is not done in child processes.
        thumbnails: how many images of each chunk have one, for the report.
    """

    read: ReadConfig
    sizes: SizePolicy
    infer: InferConfig
    weights: Any
    network: PVTv2Config
    processors: Processors
    careful: bool
    tell: Tell
    steps: Steps = NETWORK
    thumbnails: int = 0


@dataclass(frozen=True, slots=True)
class Dropped:
    """Why a block was dropped, or a pass was given up.

    Attributes:
        for_room: Ray had no room for a block; nothing is wrong with what is in it.
    """

    reason: str
    for_room: bool = False


def run_pass(
    plan: Sequence[pa.Table], config: FlowConfig, sink: SliceDatasink, on_end: Callable[[Operators], None]
) -> list[Dropped]:
    """Runs some tables of the plan once, end to end; what could not be published is for the caller to find.

    Args:
        on_end: told what Ray says of its operators, also where the pass is interrupted.

    Returns:
        What was dropped, in the order in which it happened; mostly nothing.
    """
    context = DataContext.get_current()
    context.target_max_block_size = TARGET_BLOCK_BYTES
    context.max_errored_blocks = MAX_ERRORED_BLOCKS
    context.enable_progress_bars = False
    # The run has a patience of its own, which knows what progress is; see `watch.py`.
    context.execution_no_progress_timeout_s = -1
    with _complaints() as complaints:
        try:
            _run(plan, config, sink, on_end)
        except ray.exceptions.RayError as error:
            complaints.dropped.append(_dropped(error))
    return complaints.dropped


def _run(
    plan: Sequence[pa.Table], config: FlowConfig, sink: SliceDatasink, on_end: Callable[[Operators], None]
) -> None:
    processors = config.processors
    dataset = (
        ray.data.from_arrow(list(plan))
        .repartition(target_num_rows_per_block=1)
        .map_batches(
            _read,
            fn_kwargs={"config": config.read, "tell": config.tell},
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=processors.read_cpus,
            max_retries=_TASK_RETRIES,
        )
        .map_batches(
            _decode,
            fn_kwargs={
                "step": config.steps.decode,
                "sizes": config.sizes,
                "careful": config.careful,
                "thumbnails": config.thumbnails,
                "tell": config.tell,
            },
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=processors.decode_cpus,
            max_retries=_TASK_RETRIES,
        )
        .map_batches(
            _CarefulInfer if config.careful else _Infer,
            fn_constructor_args=(config.steps.infer, config.weights, config.infer, config.network, config.tell),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                min_size=processors.num_actors[0],
                max_size=processors.num_actors[1],
                # The next chunk is fetched and unpacked, and the last one's rows are packed, beside the chunk in the
                # network; `_Infer` gives the network one thread. With False, Ray would do so with the whole call.
                max_concurrent_calls_per_actor=_CALLS_PER_ACTOR[config.infer.device],
                enable_true_multi_threading=True,
            ),
            num_cpus=processors.actor_cpus,
            num_gpus=processors.actor_gpus,
            # What bounds an actor's deaths are the retries of what it dies of. With a bound of their own, images that
            # kill it would use it up, and Ray waits for ever for a pool without actors.
            max_restarts=-1,
            max_task_retries=_TASK_RETRIES,
        )
    )
    try:
        # Without a bound, tasks that ask for no CPU would each get a worker process of their own.
        dataset.write_datasink(
            sink,
            ray_remote_args={**processors.nothing, "max_retries": _TASK_RETRIES},
            concurrency=2 * processors.num_collectors,
        )
    finally:
        on_end(operators_of(dataset))


class _Complaints(logging.Handler):
    """Takes Ray Data's errors while a pass runs: one line each in our log, their tracebacks in Ray's log file only."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.dropped: list[Dropped] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Notes one error."""
        error = record.exc_info[1] if record.exc_info else None
        dropped = _dropped(error) if error is not None else Dropped(record.getMessage().partition("\n")[0])
        self.dropped.append(dropped)
        logger.warning("block.dropped reason=%s", dropped.reason)


def ignore_advice() -> None:
    """From now on Ray Data's warnings are not shown: call it before another thread can be silencing warnings.

    They advise on what is chosen here on purpose, and on spellings that the pinned version has no other for.
    """
    warnings.filterwarnings("ignore", module=r"ray\.data")
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")


@contextmanager
def _complaints() -> Iterator[_Complaints]:
    ray_logger, complaints = logging.getLogger("ray.data"), _Complaints()
    for handler in ray_logger.handlers:
        if type(handler).__name__ == "PlainRayHandler":
            handler.setLevel(logging.CRITICAL)
    ray_logger.addHandler(complaints)
    try:
        yield complaints
    finally:
        ray_logger.removeHandler(complaints)


def _read(batch: Any, config: ReadConfig, tell: Tell) -> Any:
    for shard in from_table(batch):
        chunks, row = read_shard(shard, config), 0
        while True:
            with at_work(tell, "read", shard.shard, None, row):
                chunk = next(chunks, None)
            if chunk is None:
                break
            row = chunk.header.first_row + chunk.header.num_rows
            yield chunk.to_table()


def _decode(
    batch: pa.Table, step: DecodeStep, sizes: SizePolicy, careful: bool, thumbnails: int, tell: Tell
) -> pa.Table:
    def decode(chunk: Chunk) -> Chunk:
        # A child process has a time of its own for each image.
        with _holding(tell, "decode", chunk), nullcontext() if careful else given_up_after(CHUNK_S):
            return with_thumbnails(step(chunk, sizes, careful=careful), thumbnails)

    return map_chunks(batch, decode)


class _Infer:
    """The actor around one infer step: several chunks are in it at a time, one of them in the network."""

    def __init__(
        self,
        make_step: Callable[[memoryview | bytes, InferConfig], ActorStep],
        weights: Any,
        config: InferConfig,
        network: PVTv2Config,
        tell: Tell,
    ) -> None:
        # All of torch runs in one thread: in two, each would keep what it has freed to itself.
        self._thread = DeviceThread()
        step = self._thread.run(lambda: partial(make_step, ray.get(weights), config))
        self._step, self._thread.ahead = step, step.ahead
        self._network, self._device, self._tell = network, config.device, tell
        self._under_way_s = 0.0  # what the chunks may take that were submitted and not waited for
        self._under_way, self._free_since = 0, time.perf_counter()

    def __call__(self, batch: pa.Table) -> pa.Table:
        return map_chunks(batch, self._answer)

    def _answer(self, chunk: Chunk) -> Chunk:
        # Clocks of two machines may differ by more than that took.
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
        # In the thread in which one thing is done at a time: a process has one timer, and tells of one thing that it
        # holds. Whatever is done there may have to wait for all chunks that are under way.
        with _holding(self._tell, "infer", chunk), given_up_after(CHUNK_S + self._under_way_s):
            yield


class _CarefulInfer:
    """The actor around one `IsolatedInferStep`, whose child has one image at a time; it loads no torch itself."""

    def __init__(self, _: Any, weights: Any, config: InferConfig, network: PVTv2Config, tell: Tell) -> None:
        self._step = IsolatedInferStep(ray.get(weights), config, network)
        self._tell, self._one_at_a_time = tell, threading.Lock()

    def __call__(self, batch: pa.Table) -> pa.Table:
        return map_chunks(batch, self._answer)

    def _answer(self, chunk: Chunk) -> Chunk:
        with self._one_at_a_time, _holding(self._tell, "infer", chunk):
            return self._step.infer(chunk)


def _holding(tell: Tell, step: str, chunk: Chunk) -> AbstractContextManager[None]:
    return at_work(tell, step, chunk.header.shard, chunk.header.slice, chunk.header.first_row)


def _dropped(error: BaseException) -> Dropped:
    """The line that names the innermost error; Ray wraps it in tracebacks above and advice below."""
    cause = error
    while (inner := getattr(cause, "cause", None) or cause.__cause__) is not None and inner is not cause:
        # A mark that Ray Data hangs below an error of its own or of Ray; it says nothing.
        if isinstance(inner, SystemException):
            break
        cause = inner
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    named = [line for line in lines if _NAMES_AN_ERROR.match(line)]
    text = named[-1] if named else f"{type(cause).__name__}: {lines[0] if lines else 'no message'}"
    return Dropped(text[:300], for_room=isinstance(cause, NO_ROOM_ERRORS))
