"""Captured CUDA graphs of a network, one for each capacity that was used."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.gpu.device_errors import CaptureError, is_out_of_memory
from model.gpu.forward import Outputs, TabledPVTv2
from model.gpu.tables import Capacity, Sizes
from model.gpu.upload import Copy, Upload
from model.network.config import PVTv2Config

logger = logging.getLogger(__name__)

# Before a capture, kernels are compiled and loaded and libraries take their workspaces; none of that can be captured.
_WARM_UPS = 2


class _Captured(NamedTuple):
    """A graph, and where it leaves its outputs."""

    graph: torch.cuda.CUDAGraph
    outputs: Outputs


class Graphs:
    """The graphs share memory: only one runs at a time, and its outputs hold until the next one runs."""

    def __init__(self, config: PVTv2Config, network: TabledPVTv2, largest: Capacity, stream: torch.cuda.Stream) -> None:
        """Captures nothing yet.

        Args:
            largest: of all capacities that will be asked for.
            stream: on which all packs run; not the default one.
        """
        self._network, self._stream = network, stream
        self._upload = Upload(config, largest, stream.device)
        self._captured: dict[Capacity, _Captured] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._copies: list[Copy] = []

    def __len__(self) -> int:
        return len(self._captured)

    def run(self, images: Sequence[Tensor], sizes: Sizes, capacity: Capacity) -> Outputs:
        """Queues a pack on the stream, which must be the current one.

        Raises:
            CaptureError: the graph could not be captured.
            RuntimeError: there is no room for it on the device; see `is_out_of_memory`.
        """
        self._copies.append(self._upload.send(images, sizes, capacity, self._stream))
        captured = self._captured.get(capacity)
        if captured is None:
            captured = self._captured[capacity] = self._capture(capacity)
        captured.graph.replay()
        return captured.outputs

    def take_copies(self) -> list[Copy]:
        """The copies to the device since this was asked last."""
        taken, self._copies = self._copies, []
        return taken

    def release(self) -> None:
        """Waits until nothing runs, and lets go of all graphs and their memory."""
        self._stream.synchronize()
        self._captured.clear()
        self._pool = torch.cuda.graph_pool_handle()
        torch.cuda.empty_cache()

    def _capture(self, capacity: Capacity) -> _Captured:
        pixels_X3, tables = self._upload.views(capacity)
        for _ in range(_WARM_UPS):
            self._network(pixels_X3, tables)
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads of the process may use CUDA meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                outputs = self._network(pixels_X3, tables)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise CaptureError(str(error)) from error
        logger.info("graph.captured tokens=%d images=%d", capacity.tokens[0], capacity.images)
        return _Captured(graph, outputs)
