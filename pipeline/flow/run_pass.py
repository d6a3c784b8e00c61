"""The one chained expression: plan rows -> read -> decode -> infer -> sink, on Ray Data.

Nothing here is a retry policy but the bounds: every Ray retry is finite, a block whose task fails for good is dropped,
and the driver runs again what was not published (see `run.py`).
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from model.network.config import PVTv2Config
from pipeline.account.ray_operators import Operators, operators_of
from pipeline.chunks.chunk import Chunk, map_chunks
from pipeline.chunks.size_policy import SizePolicy
from pipeline.cluster.processors import Processors
from pipeline.decode.thumbnail import with_thumbnails
from pipeline.flow.datasink import SliceDatasink
from pipeline.flow.infer_actor import CarefulInferActor, InferActor, holding_chunk
from pipeline.flow.ray_errors import Dropped, dropped_for, taken_errors
from pipeline.flow.steps import NETWORK, DecodeStep, Steps
from pipeline.infer.config import InferConfig
from pipeline.plan.planned_shard import from_table
from pipeline.read.read_shard import ReadConfig, read_shard
from pipeline.workers.activity import Tell, at_work
from pipeline.workers.time_limits import CHUNK_S, given_up_after

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
    with taken_errors() as complaints:
        try:
            _run(plan, config, sink, on_end)
        except ray.exceptions.RayError as error:
            complaints.dropped.append(dropped_for(error))
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
            CarefulInferActor if config.careful else InferActor,
            fn_constructor_args=(config.steps.infer, config.weights, config.infer, config.network, config.tell),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                min_size=processors.num_actors[0],
                max_size=processors.num_actors[1],
                # The next chunk is fetched and unpacked, and the last one's rows are packed, beside the chunk in the
                # network; `InferActor` gives the network one thread. With False, Ray would do so with the whole call.
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
        with holding_chunk(tell, "decode", chunk), nullcontext() if careful else given_up_after(CHUNK_S):
            return with_thumbnails(step(chunk, sizes, careful=careful), thumbnails)

    return map_chunks(batch, decode)
