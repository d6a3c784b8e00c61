"""The one chained expression: plan rows -> read -> decode -> infer -> sink, on Ray Data.

Every retry of Ray is bounded here. A block whose task fails in all attempts is dropped, and the driver runs again what
was not published (`pipeline.run.passes`).
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from pipeline.account.ray_operators import Operators, operators_of
from pipeline.chunks.chunk import Chunk, map_chunks
from pipeline.chunks.size_policy import SizePolicy
from pipeline.decode.thumbnail import with_thumbnails
from pipeline.flow.config import FlowConfig
from pipeline.flow.datasink import SliceDatasink
from pipeline.flow.infer_actor import CarefulInferActor, InferActor, holding_chunk
from pipeline.flow.ray_errors import Dropped, dropped_for, explained, taken_errors
from pipeline.flow.steps import DecodeStep
from pipeline.plan.planned_shard import from_table
from pipeline.read.read_shard import ReadConfig, read_shard
from pipeline.workers.activity import Notify, at_work
from pipeline.workers.time_limits import CHUNK_S, given_up_after

# Chunks are bundled into blocks, and so into tasks, up to this size: large enough that a task of thumbnails is worth
# its overhead, small enough that photos flow on at once.
TARGET_BLOCK_BYTES = 8 * 2**20
# Blocks that may fail in one pass before the pass is given up. The run finds their slices missing when it closes; the
# bound only keeps a broken installation from grinding through the whole input.
MAX_ERRORED_BLOCKS = 32
_TASK_RETRIES = 2
# One chunk in each part of the step, and the chunks that are submitted ahead.
_CALLS_PER_ACTOR = {"cpu": 2, "cuda": 4}


def run_pass(
    plan: Sequence[pa.Table], config: FlowConfig, sink: SliceDatasink, on_end: Callable[[Operators], None]
) -> list[Dropped]:
    """Runs some tables of the plan once, end to end, and returns what was dropped, in order; mostly nothing.

    The caller finds out what was not published.

    Args:
        plan: tables of planned shards.
        config: settings of the steps.
        sink: takes the rows.
        on_end: called with Ray's figures of its operators, also where the pass is interrupted.
    """
    context = DataContext.get_current()
    context.target_max_block_size = TARGET_BLOCK_BYTES
    context.max_errored_blocks = MAX_ERRORED_BLOCKS
    context.enable_progress_bars = False
    # The run has its own limit for a pass without progress (`pipeline.run.watch`).
    context.execution_no_progress_timeout_s = -1
    # Else Ray Data puts an exception of its own, which says nothing, around that of the step.
    context.raise_original_map_exception = True
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
            fn_kwargs={"config": config.read, "notify": config.notify},
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
                "notify": config.notify,
            },
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=processors.decode_cpus,
            max_retries=_TASK_RETRIES,
        )
        .map_batches(
            CarefulInferActor if config.careful else InferActor,
            fn_constructor_args=(config.steps.infer, config.weights, config.infer, config.network, config.notify),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                min_size=processors.num_actors[0],
                max_size=processors.num_actors[1],
                # The actor fetches and unpacks the next chunk, and packs the rows of the last one, beside the chunk in
                # the network; `InferActor` gives the network one thread. With False, Ray would give one thread to the
                # whole call.
                max_concurrent_calls_per_actor=_CALLS_PER_ACTOR[config.infer.device],
                enable_true_multi_threading=True,
            ),
            num_cpus=processors.actor_cpus,
            num_gpus=processors.actor_gpus,
            # The retries of a chunk bound how often an actor dies of it. If the number of restarts were bounded too,
            # images that kill an actor would use them up, and Ray waits for ever for a pool without actors.
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


def _read(batch: Any, config: ReadConfig, notify: Notify) -> Any:
    with explained("read"):
        for shard in from_table(batch):
            chunks, row = read_shard(shard, config), 0
            while True:
                with at_work(notify, "read", shard.shard, None, row):
                    chunk = next(chunks, None)
                if chunk is None:
                    break
                row = chunk.header.first_row + chunk.header.num_rows
                yield chunk.to_table()


def _decode(
    batch: pa.Table, step: DecodeStep, sizes: SizePolicy, careful: bool, thumbnails: int, notify: Notify
) -> pa.Table:
    def decode(chunk: Chunk) -> Chunk:
        # A child process has its own time limit for each image.
        with holding_chunk(notify, "decode", chunk), nullcontext() if careful else given_up_after(CHUNK_S):
            return with_thumbnails(step(chunk, sizes, careful=careful), thumbnails)

    with explained("decode"):
        return map_chunks(batch, decode)
