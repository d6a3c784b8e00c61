"""Runs the network in a child process that may die, one image at a time. The parent process loads no PyTorch."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from model.network.config import PVTv2Config
from pipeline.chunks.chunk import Chunk, Header, set_columns
from pipeline.chunks.columns import PAYLOAD_COLUMNS, record_schema
from pipeline.chunks.failures import ErrorCode
from pipeline.chunks.measures import NOTHING
from pipeline.chunks.task import ClassifyAtSizes
from pipeline.infer.config import InferConfig
from pipeline.workers.isolation import ChildError, Crash, IsolatedService
from pipeline.workers.time_limits import INFER_IMAGE_S, compute_s

_TRIAL_PX = 64


class IsolatedInferStep:
    """An infer step for images that may crash the process of the network.

    A child process must answer a blank image before its first real image, so that no image is blamed for a broken
    device.
    """

    def __init__(self, weights: bytes | np.ndarray, config: InferConfig, network: PVTv2Config) -> None:
        """Keeps the settings; the first chunk starts the child process.

        Args:
            weights: Bytes of the checkpoint's weights.
            config: Settings of the infer step.
            network: Configuration of the network, from which the time limit of an image is computed.
        """
        self._network, self._device = network, config.device
        self._rows_of_record = rows_of_record(config)
        self._service = IsolatedService(__name__, (weights, config))

    def infer(self, chunk: Chunk) -> Chunk:
        """Returns the chunk with the task's columns in place of pixels.

        An image that ends or stalls the child process becomes a failed record with the code `infer.crashed`.

        Raises:
            ChildError: No child process could be started, or a child process ended over rows that have no images.
        """
        started = time.perf_counter()
        answered = [self._answer(part) for part in _parts(chunk, self._rows_of_record)]
        return chunk.after("compute", started, pa.concat_tables(answered))

    def close(self) -> None:
        """Ends the child process."""
        self._service.close()

    def _answer(self, part: Chunk) -> pa.Table:
        timeout_s = INFER_IMAGE_S + compute_s(self._network, part.net_sizes(), self._device)
        answer = self._service.ask(part.to_table(), timeout_s)
        if isinstance(answer, Crash):
            answer = self._service.ask(_failed(part, answer.explain("inference")).to_table(), INFER_IMAGE_S)
        if isinstance(answer, Crash):
            raise ChildError(f"rows without pixels were not answered: the child process {answer}")
        return answer


def start_service(settings: Any) -> Callable[[pa.Table], pa.Table]:
    """Returns the function that answers requests, after a blank image was answered; the child process calls this."""
    from pipeline.infer.infer_step import InferStep

    step = InferStep(*settings)
    step.infer(_blank_chunk(rows_of_record(settings[1])))
    return lambda table: step.infer(Chunk.from_table(table)).rows


def _parts(chunk: Chunk, rows_of_record: int) -> Iterator[Chunk]:
    """Yields one chunk for each record of a chunk, with this record's pixels only; yields an empty chunk unchanged.

    Args:
        rows_of_record: Number of rows that each record has: one for each size.
    """
    if not chunk.rows.num_rows:
        yield chunk
    for first in range(0, chunk.rows.num_rows, rows_of_record):
        rows = chunk.rows.slice(first, rows_of_record)
        offsets, lengths = (rows.column(name).to_pylist() for name in PAYLOAD_COLUMNS.names)
        start = offsets[0]
        at_start = pa.array([offset - start for offset in offsets], pa.int64())
        payload = chunk.payload.slice(start, offsets[-1] + lengths[-1] - start)
        yield replace(chunk, rows=set_columns(rows, {PAYLOAD_COLUMNS.names[0]: at_start}), payload=payload)


def _failed(part: Chunk, message: str) -> Chunk:
    """Returns a chunk of one record in which the record has failed and has no pixels."""
    values = {"status": "failed", "error_code": str(ErrorCode.INFER_CRASHED), "error_message": message}
    columns = {name: pa.array([value] * part.rows.num_rows, pa.string()) for name, value in values.items()}
    return replace(part, rows=set_columns(part.rows, columns), payload=pa.py_buffer(b""))


def rows_of_record(config: InferConfig) -> int:
    """Returns the number of rows that each record has between the decode step and the infer step."""
    return len(config.task.policies) if isinstance(config.task, ClassifyAtSizes) else 1


def _blank_chunk(num_rows: int) -> Chunk:
    """Returns a chunk of one black image, which all rows show."""
    num_bytes = 3 * _TRIAL_PX**2
    row = {"image_id": "", "shard": "", "row": 0, "status": "ok", "payload_offset": 0, "payload_length": num_bytes}
    row |= {"net_height": _TRIAL_PX, "net_width": _TRIAL_PX}
    header = Header(
        shard="", name="", hash16="", source_etag=None, slice=0, first_row=0, num_rows=1, slice_first_row=0,
        slice_rows=None, end=False, ignored=0,
    )  # fmt: skip
    return Chunk(
        header=header,
        attempt="",
        pass_number=0,
        measured=NOTHING,
        rows=pa.Table.from_pylist([row] * num_rows, schema=pa.schema([*record_schema(()), *PAYLOAD_COLUMNS])),
        payload=pa.py_buffer(bytes(num_bytes)),
    )
