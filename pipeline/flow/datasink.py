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
from pipeline.flow.ray_errors import explained
from pipeline.workers.activity import Holding

logger = logging.getLogger(__name__)


class SliceDatasink(Datasink[int]):
    """Hands every chunk to the collector of its slice, and waits until the collector has taken the chunk."""

    def __init__(self, collectors: Sequence[Any]) -> None:
        self._collectors = list(collectors)

    def write(self, blocks: Iterable[Block], ctx: Any) -> int:
        """Hands the chunks of some blocks to the collectors; returns the number of chunks."""
        with explained("sink"):
            waiting = [self._send(row) for block in blocks for row in _rows(block)]
            for reference in waiting:
                try:
                    ray.get(reference)
                except ray.exceptions.RayActorError as error:
                    # The collector's unfinished slices are missing when the pass ends, and run again in the next pass.
                    logger.warning("collector.lost error=%s", error)
            return len(waiting)

    def _send(self, row: pa.Table) -> Any:
        chunk = Chunk.from_table(row)
        header = chunk.header
        collector = self._collectors[(int(header.hash16, 16) + header.slice) % len(self._collectors)]
        holding = Holding("publish", header.shard, header.slice, header.first_row)
        return collector.take.remote(row, chunk.pass_number, holding)

    def on_write_complete(self, write_result: WriteResult[int]) -> None:
        """Does nothing, because the collectors publish the slices themselves."""

    def get_name(self) -> str:
        """Returns the name that the step has in Ray's statistics."""
        return "Sink"


def _rows(block: Block) -> list[pa.Table]:
    table: pa.Table = BlockAccessor.for_block(block).to_arrow()
    return [table.slice(index, 1) for index in range(table.num_rows)]
