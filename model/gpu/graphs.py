"""Captures CUDA graphs of a network and replays them, one graph for each capacity that was used."""

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

# Number of runs before a capture. In these runs kernels are compiled and loaded, and libraries allocate workspaces;
# both are impossible during a capture.
_WARM_UPS = 2


class _Captured(NamedTuple):
    """A graph, and the tensors into which the graph writes its outputs."""

    graph: torch.cuda.CUDAGraph
    outputs: Outputs


class Graphs:
    """The captured graphs of a network. The graphs share memory: each run overwrites the outputs of the run before."""

    def __init__(self, config: PVTv2Config, network: TabledPVTv2, largest: Capacity, stream: torch.cuda.Stream) -> None:
        """Allocates the memory of the uploads; graphs are captured when they are first needed.

        Args:
            config: Configuration of the network.
            network: Network to capture.
            largest: Largest capacity that will be used.
            stream: Stream on which all packs run; not the default stream.
        """
        self._network, self._stream = network, stream
        self._upload = Upload(config, largest, stream.device)
        self._captured: dict[Capacity, _Captured] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._copies: list[Copy] = []

    def __len__(self) -> int:
        return len(self._captured)

    def run(self, images: Sequence[Tensor], sizes: Sizes, capacity: Capacity) -> Outputs:
        """Queues a pack on the stream, which must be the current stream, and returns the outputs of the pack.

        Raises:
            CaptureError: The graph could not be captured.
            RuntimeError: The device has not enough memory; see `is_out_of_memory`.
        """
        self._copies.append(self._upload.send(images, sizes, capacity, self._stream))
        captured = self._captured.get(capacity)
        if captured is None:
            captured = self._captured[capacity] = self._capture(capacity)
        captured.graph.replay()
        return captured.outputs

    def take_copies(self) -> list[Copy]:
        """Returns the copies to the device since the last call of this method."""
        taken, self._copies = self._copies, []
        return taken

    def release(self) -> None:
        """Waits until no pack runs, and frees all graphs and their memory."""
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
            # "thread_local": other threads of the process may use CUDA during the capture.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                outputs = self._network(pixels_X3, tables)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise CaptureError(str(error)) from error
        logger.info("graph.captured tokens=%d images=%d", capacity.tokens[0], capacity.images)
        return _Captured(graph, outputs)
