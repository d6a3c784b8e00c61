"""The sink step: a Ray `Datasink` that routes every chunk to the collector of its slice."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import ray
from ray.data import Datasink
from ray.data.block import Block, BlockAccessor
from ray.data.datasource.datasink import WriteResult

from pipeline.chunks.chunk import Chunk
from pipeline.workers.activity import Holding

logger = logging.getLogger(__name__)


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
                row = table.slice(index, 1)
                chunk = Chunk.from_table(row)
                header = chunk.header
                collector = self._collectors[(int(header.hash16, 16) + header.slice) % len(self._collectors)]
                holding = Holding("publish", header.shard, header.slice, header.first_row)
                waiting.append(collector.take.remote(row, chunk.pass_number, holding))
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
