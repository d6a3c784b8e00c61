"""The sink step: a Ray `Datasink` in front of a few collector actors; every slice has one collector, by its address."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import ray
from ray.data import Datasink
from ray.data.block import Block, BlockAccessor
from ray.data.datasource.datasink import WriteResult

from pipeline.chunk import Chunk
from pipeline.collect import Collector, CollectorState, SinkConfig

logger = logging.getLogger(__name__)

# A collector that answers nothing for so long is taken for dead by the driver's own calls.
_ANSWER_TIMEOUT_S = 60.0


class Collectors:
    """The collector actors of one run, seen from the driver."""

    def __init__(self, config: SinkConfig, num_collectors: int) -> None:
        # No CPU is reserved: they mostly wait, and on a small machine every CPU counts. A collector that dies comes
        # back empty; the slices it held are run again in the next pass.
        actor: Any = ray.remote(num_cpus=0, max_restarts=5, max_task_retries=2)(Collector)
        self.actors: list[Any] = [actor.remote(config) for _ in range(num_collectors)]
        self._receipts_seen = [0] * num_collectors

    def start_pass(self, pass_number: int) -> None:
        """Makes every collector forget unfinished slices and take chunks of this pass only."""
        ray.get([actor.start_pass.remote(pass_number) for actor in self.actors], timeout=_ANSWER_TIMEOUT_S)

    def poll(self, timeout_s: float = _ANSWER_TIMEOUT_S) -> list[CollectorState]:
        """The state of every collector that answers, with the receipts that were not seen before."""
        asked = [actor.state.remote(seen) for actor, seen in zip(self.actors, self._receipts_seen, strict=True)]
        states = []
        for index, reference in enumerate(asked):
            try:
                state = ray.get(reference, timeout=timeout_s)
            except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
                logger.warning("collector.silent index=%d error=%s", index, type(error).__name__)
                continue
            self._receipts_seen[index] += len(state.receipts)
            states.append(state)
        return states

    def stop(self) -> None:
        """Ends the actors."""
        for actor in self.actors:
            ray.kill(actor)


class SliceDatasink(Datasink[int]):
    """Hands every chunk to the collector of its slice, and waits until that has it."""

    def __init__(self, collectors: Sequence[Any]) -> None:
        self._collectors = list(collectors)

    def write(self, blocks: Iterable[Block], ctx: Any) -> int:
        """Routes the chunks of some blocks; returns how many there were."""
        waiting = []
        for block in blocks:
            table: pa.Table = BlockAccessor.for_block(block).to_arrow()
            for index in range(table.num_rows):
                chunk = table.slice(index, 1)
                header = Chunk.from_table(chunk).header
                collector = self._collectors[(int(header.hash16, 16) + header.slice) % len(self._collectors)]
                waiting.append(collector.add.remote(chunk))
        for reference in waiting:
            try:
                ray.get(reference)
            except ray.exceptions.RayActorError as error:
                # Its unfinished slices are missing when the pass ends, and run again in the next.
                logger.warning("collector.lost error=%s", error)
        return len(waiting)

    def on_write_complete(self, write_result: WriteResult[int]) -> None:
        """Nothing is committed here: every slice was published by its collector."""

    def get_name(self) -> str:
        """The step's name in Ray's own figures."""
        return "Sink"
