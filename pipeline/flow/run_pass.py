"""Runs one pass as one chained expression of Ray Data: rows of the plan -> read -> decode -> infer -> sink.

Ray retries each task a bounded number of times. A block whose task fails in all attempts is dropped, and the driver
runs the slices again that were not published (`pipeline.run.passes`).
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

# Largest size of the blocks into which Ray Data bundles chunks; a task works on one block. The size is large enough
# that a task of small images is worth its overhead, and small enough that large photos need not wait for each other.
TARGET_BLOCK_BYTES = 8 * 2**20
# Blocks that may fail before Ray Data ends the execution. The next pass runs their slices again; the bound only keeps a
# broken installation from trying the whole input block by block.
MAX_ERRORED_BLOCKS = 32
_TASK_RETRIES = 2
# Chunks that an actor takes at a time, by device: one for each part of the step, and chunks that are submitted ahead.
_CALLS_PER_ACTOR = {"cpu": 2, "cuda": 4}


def run_pass(
    plan: Sequence[pa.Table], config: FlowConfig, sink: SliceDatasink, on_end: Callable[[Operators], None]
) -> list[Dropped]:
    """Runs tables of the plan once through all steps; returns why blocks were dropped, in the order of the errors.

    The list is mostly empty. The caller finds out which slices were not published.

    Args:
        plan: tables of planned shards.
        config: settings of the steps.
        sink: sink step, which takes the rows.
        on_end: function that is called with Ray Data's statistics about its operators, even if the pass is interrupted.
    """
    context = DataContext.get_current()
    context.target_max_block_size = TARGET_BLOCK_BYTES
    context.max_errored_blocks = MAX_ERRORED_BLOCKS
    context.enable_progress_bars = False
    # The run has its own limit for a pass without progress (`pipeline.run.watch`).
    context.execution_no_progress_timeout_s = -1
    # Without this setting Ray Data wraps the step's exception in another exception, which says nothing.
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
                # While one chunk is in the network, the actor fetches and unpacks the next chunk and makes the rows of
                # the last chunk; `InferActor` gives the network one thread. With False, Ray would give one thread to
                # the whole call.
                max_concurrent_calls_per_actor=_CALLS_PER_ACTOR[config.infer.device],
                enable_true_multi_threading=True,
            ),
            num_cpus=processors.actor_cpus,
            num_gpus=processors.actor_gpus,
            # The retries of a chunk bound how often the chunk can kill an actor. If the number of restarts were bounded
            # too, images that kill an actor would use up all restarts. Ray waits for ever for a pool without actors.
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
