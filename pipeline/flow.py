"""The one chained expression: plan rows -> read -> decode -> infer -> sink, on Ray Data.

Nothing here is a retry policy but the bounds: every Ray retry is finite, a block whose task fails for good is dropped,
and the driver runs again what was not published (see `run.py`).
"""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from pipeline.chunk import map_chunks
from pipeline.config import InferConfig
from pipeline.decode_step import decode_chunk
from pipeline.plan import PlannedShard, from_table, to_table
from pipeline.processors import Processors
from pipeline.read import ReadConfig, read_shard
from pipeline.sink import SliceDatasink
from pipeline.sizes import SizePolicy

logger = logging.getLogger(__name__)

# Chunks are bundled into blocks, and so into tasks, up to this size: large enough that a task of thumbnails is worth
# its overhead, small enough that photos flow on at once.
TARGET_BLOCK_BYTES = 8 * 2**20
# Blocks that may fail in one pass before the pass is given up. They are found missing at the close; the bound only
# keeps a broken installation from grinding through the whole input.
MAX_ERRORED_BLOCKS = 32
_TASK_RETRIES = 2
_NAMES_AN_ERROR = re.compile(r"[\w.]+(Error|Exception)\b.*: ")


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """What the steps of one pass need.

    Attributes:
        weights: reference to the checkpoint's bytes in Ray's object store, which moves them to each node once.
        careful: decode every image in a child process that may die.
    """

    read: ReadConfig
    sizes: SizePolicy
    infer: InferConfig
    weights: Any
    processors: Processors
    careful: bool


def run_pass(shards: list[PlannedShard], config: FlowConfig, sink: SliceDatasink) -> list[str]:
    """Runs the shards once, end to end; what could not be published is for the caller to find.

    Returns:
        Why blocks were dropped, or the pass was given up, in the order in which it happened; mostly empty.
    """
    context = DataContext.get_current()
    context.target_max_block_size = TARGET_BLOCK_BYTES
    context.max_errored_blocks = MAX_ERRORED_BLOCKS
    context.enable_progress_bars = False
    with _complaints() as complaints:
        try:
            _run(shards, config, sink)
        except ray.exceptions.RayError as error:
            complaints.reasons.append(_reason(error))
    return complaints.reasons


def _run(shards: list[PlannedShard], config: FlowConfig, sink: SliceDatasink) -> None:
    processors = config.processors
    (
        ray.data.from_arrow(to_table(shards))
        .repartition(target_num_rows_per_block=1)
        .map_batches(
            _read,
            fn_kwargs={"config": config.read},
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=processors.read_cpus,
            max_retries=_TASK_RETRIES,
        )
        .map_batches(
            _decode,
            fn_kwargs={"sizes": config.sizes, "careful": config.careful},
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=processors.decode_cpus,
            max_retries=_TASK_RETRIES,
        )
        .map_batches(
            _Infer,
            fn_constructor_args=(config.weights, config.infer),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                min_size=processors.num_actors[0],
                max_size=processors.num_actors[1],
                max_concurrent_calls_per_actor=2,
                enable_true_multi_threading=False,
            ),
            num_cpus=processors.actor_cpus,
            num_gpus=processors.actor_gpus,
            max_restarts=_TASK_RETRIES,
            max_task_retries=_TASK_RETRIES,
        )
        # Without a bound, tasks that ask for no CPU would each get a worker process of their own.
        .write_datasink(
            sink,
            ray_remote_args={"num_cpus": 0, "max_retries": _TASK_RETRIES},
            concurrency=2 * processors.num_collectors,
        )
    )


class _Complaints(logging.Handler):
    """Takes Ray Data's errors while a pass runs: one line each in our log, their tracebacks in Ray's log file only."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.reasons: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Notes one error."""
        error = record.exc_info[1] if record.exc_info else None
        reason = _reason(error) if error is not None else record.getMessage().partition("\n")[0]
        self.reasons.append(reason)
        logger.warning("block.dropped reason=%s", reason)


@contextmanager
def _complaints() -> Iterator[_Complaints]:
    # They advise on what is chosen here on purpose, and on spellings that the pinned version has no other for.
    warnings.filterwarnings("ignore", module=r"ray\.data")
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
    ray_logger, complaints = logging.getLogger("ray.data"), _Complaints()
    for handler in ray_logger.handlers:
        if type(handler).__name__ == "PlainRayHandler":
            handler.setLevel(logging.CRITICAL)
    ray_logger.addHandler(complaints)
    try:
        yield complaints
    finally:
        ray_logger.removeHandler(complaints)


def _read(batch: Any, config: ReadConfig) -> Any:
    for shard in from_table(batch):
        for chunk in read_shard(shard, config):
            yield chunk.to_table()


def _decode(batch: pa.Table, sizes: SizePolicy, careful: bool) -> pa.Table:
    return map_chunks(batch, lambda chunk: decode_chunk(chunk, sizes, careful=careful))


class _Infer:
    """The actor around one `Classifier`."""

    def __init__(self, weights: Any, config: InferConfig) -> None:
        # Here and not above: the other steps' workers import this file too, and would load torch for nothing.
        from pipeline.infer import Classifier

        self._classifier = Classifier(ray.get(weights), config)

    def __call__(self, batch: pa.Table) -> pa.Table:
        return map_chunks(batch, self._classifier.classify)


def _reason(error: BaseException) -> str:
    """The line that names the innermost error; Ray wraps it in tracebacks above and advice below."""
    cause = error
    while (inner := getattr(cause, "cause", None) or cause.__cause__) is not None and inner is not cause:
        cause = inner
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    named = [line for line in lines if _NAMES_AN_ERROR.match(line)]
    text = named[-1] if named else f"{type(cause).__name__}: {lines[0] if lines else 'no message'}"
    return text[:300]
