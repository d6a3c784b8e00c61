"""Runs packs on a GPU: a few captured graphs of fixed capacity serve images of any sizes.

A pack runs in the smallest capacity into which the pack fits. The bytes of a pack are copied to the GPU while the pack
before it runs. One launch replays the whole network, which would otherwise be some hundred launches. A pack that does
not fit into the largest capacity is split. An image that alone does not fit runs without a graph, one kernel launch
after the other ("launch by launch"), in memory of its own.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.gpu.device_errors import CaptureError, is_out_of_memory
from model.gpu.exact_float32 import exact_float32
from model.gpu.forward import Outputs, TabledPVTv2
from model.gpu.graphs import Graphs
from model.gpu.operations import Operations
from model.gpu.tables import Capacity, Sizes, capacity_for, capacity_of, device_tables, fits, needs, split
from model.gpu.upload import Copy
from model.network.config import RGB, PVTv2Config, stage_sides
from model.network.pvt_v2 import PVTv2

logger = logging.getLogger(__name__)

MAX_TOKENS = 256 * 1024  # tokens of stage 1 in the largest capacity
# Capacities as fractions of the largest capacity. A pack that just does not fit into one capacity fills at least half
# of the next larger capacity.
_PARTS = (1.0, 0.75, 0.5, 0.375, 0.25, 0.1875, 0.125, 0.0625, 0.03125)


@dataclass(frozen=True, slots=True)
class PackOutputs:
    """The outputs of a pack, in the order of the images.

    Letters in the shapes: N images, C channels, K classes.

    Attributes:
        embedding: Mean of the last map of each image, NC, float32.
        logits: Scores of the classes, NK, float32; None if the network has no head.
        maps: Four maps CHW for each image, of the network's dtype, as views; empty unless maps were asked for.
    """

    embedding: Tensor
    logits: Tensor | None
    maps: tuple[tuple[Tensor, ...], ...]

    def owned(self) -> list[Tensor]:
        """Returns one tensor for each piece of memory in which the outputs lie."""
        logits = () if self.logits is None else (self.logits,)
        tensors = (self.embedding, *logits, *(map_CHW for of_image in self.maps for map_CHW in of_image))
        return list({tensor.untyped_storage().data_ptr(): tensor for tensor in tensors}.values())


class DeviceSeconds(NamedTuple):
    """The seconds that a GPU worked on one pack.

    Attributes:
        compute: Seconds from the start of the pack to its outputs. The wait for the bytes of the pack is included.
        upload: Seconds of the pack's copy to the device, which happens while the pack before it runs; 0 if the pack
            runs without a graph.
    """

    compute: float
    upload: float


class Ticket:
    """A pack that was submitted; its outputs may not be computed yet."""

    def __init__(
        self,
        outputs: PackOutputs,
        begun: torch.cuda.Event | None = None,
        done: torch.cuda.Event | None = None,
        copies: Sequence[Copy] = (),
    ) -> None:
        """Describes a pack.

        Args:
            outputs: Outputs of the pack, whose numbers are not valid before `done`.
            begun: Event that the GPU records before the pack; None for a pack that has run already.
            done: Event that the GPU records after the pack; None for a pack that has run already.
            copies: Copies of the pack to the GPU.
        """
        self._outputs, self._begun, self._done, self._copies = outputs, begun, done, copies

    def result(self) -> PackOutputs:
        """Returns the outputs. Work that is queued on the device's current stream from now on may use the outputs.

        Such work waits for this pack alone, not for packs that were submitted later.
        """
        if self._done is not None:
            stream = torch.cuda.current_stream(self._outputs.embedding.device)
            stream.wait_event(self._done)
            for tensor in self._outputs.owned():
                tensor.record_stream(stream)
        return self._outputs

    def device_s(self) -> DeviceSeconds:
        """Returns the seconds that the GPU worked on the pack; zeros for a pack that did not run on a GPU.

        The caller must have read the outputs before.
        """
        if self._begun is None or self._done is None:
            return DeviceSeconds(0.0, 0.0)
        upload_ms = sum(copy.begun.elapsed_time(copy.done) for copy in self._copies)
        return DeviceSeconds(self._begun.elapsed_time(self._done) / 1e3, upload_ms / 1e3)


class Engine:
    """A network that is prepared for packs of images of any sizes, on its device and of its dtype.

    Only one thread at a time may use an engine. An engine on a device that is not a GPU runs packs operation by
    operation; tests use such engines.
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: PVTv2,
        operations: Operations,
        *,
        mean: RGB,
        std: RGB,
        max_tokens: int = MAX_TOKENS,
        use_graphs: bool = True,
    ) -> None:
        """Prepares the weights that the model has now.

        Args:
            model: Network of float32, bfloat16 or float16.
            operations: Implementation of the operations for the model's device.
            mean: RGB mean of pixels in [0, 1].
            std: RGB standard deviation of pixels in [0, 1].
            max_tokens: Tokens of stage 1 in the largest capacity.
            use_graphs: True replays captured graphs; False runs every pack launch by launch.
        """
        self._config: PVTv2Config = model.config
        self._network = TabledPVTv2(model, operations, mean=mean, std=std)
        self._device = next(model.parameters()).device
        parts = sorted({max(64, int(max_tokens * part)) for part in _PARTS})
        self._capacities = [capacity_of(self._config, tokens) for tokens in parts]
        self._graphs: Graphs | None = None
        self._stream: torch.cuda.Stream | None = None
        if self._device.type == "cuda":
            self._stream = torch.cuda.Stream(self._device)
            if use_graphs:
                self._graphs = Graphs(self._config, self._network, self._capacities[-1], self._stream)
            # The weights were prepared on the current stream, and the engine's own stream reads them.
            torch.cuda.synchronize(self._device)

    @torch.inference_mode()
    def submit(self, images: Sequence[Tensor], *, maps: bool = False) -> Ticket:
        """Submits a pack. On a GPU, `submit` returns while the pack still runs.

        Args:
            images: At least one image HWC: RGB, uint8, of a size that the network takes, on any device. Images in the
                host's memory are copied before `submit` returns.
            maps: Whether the outputs have maps.

        Raises:
            torch.OutOfMemoryError: The device has not enough memory for the pack. The engine has freed the memory of
                its graphs; smaller packs may fit.
        """
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        needed = needs(self._config, sizes)
        if self._stream is None:
            return Ticket(self._run_parts(images, sizes, needed, maps))
        on_device = [image for image in images if image.is_cuda]
        if on_device:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        for image in on_device:  # the owner may free an image before it is read
            image.record_stream(self._stream)
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            begun, done = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begun.record(self._stream)
            outputs = self._run_parts(images, sizes, needed, maps)
            done.record(self._stream)
            copies = self._graphs.take_copies() if self._graphs is not None else ()
        return Ticket(outputs, begun, done, copies)

    def release(self) -> None:
        """Frees all graphs; later packs capture graphs again."""
        if self._graphs is not None:
            self._graphs.release()

    def num_graphs(self) -> int:
        """Returns the number of captured graphs."""
        return 0 if self._graphs is None else len(self._graphs)

    def _run_parts(self, images: Sequence[Tensor], sizes: Sizes, needed: np.ndarray, maps: bool) -> PackOutputs:
        if not self._capacities:
            parts = [[index] for index in range(len(images))]
        else:
            parts = split(needed, self._capacities[-1])
        outputs = [
            self._run_part([images[i] for i in part], [sizes[i] for i in part], needed[part], maps) for part in parts
        ]
        if len(outputs) == 1:
            return outputs[0]
        logits = [output.logits for output in outputs if output.logits is not None]
        return PackOutputs(
            embedding=torch.cat([output.embedding for output in outputs]),
            logits=torch.cat(logits) if logits else None,
            maps=tuple(of_image for output in outputs for of_image in output.maps),
        )

    def _run_part(self, images: Sequence[Tensor], sizes: Sizes, needed: np.ndarray, maps: bool) -> PackOutputs:
        """Runs images that fit into one capacity together, or one image that fits into no capacity."""
        capacity = next((capacity for capacity in self._capacities if fits(needed, capacity)), None)
        just = capacity_for(needed)
        try:
            return self._own(self._run(images, sizes, capacity, just), sizes, maps)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            message = str(error)
        # The memory is freed outside the handler, since the frames of the exception hold the activations.
        had_graphs = self.num_graphs() > 0
        self.release()
        if capacity is None and had_graphs:
            return self._own(self._run(images, sizes, None, just), sizes, maps)
        if capacity is not None:
            self._capacities = [known for known in self._capacities if known.tokens[0] < capacity.tokens[0]]
            logger.warning("capacity.dropped tokens=%d: out of memory", capacity.tokens[0])
        raise torch.OutOfMemoryError(message)

    def _run(self, images: Sequence[Tensor], sizes: Sizes, capacity: Capacity | None, just: Capacity) -> Outputs:
        """Runs images, and returns outputs that the next run may overwrite.

        Args:
            images: Images of the pack.
            sizes: (height, width) of each image.
            capacity: Capacity whose graph is used; None to run launch by launch.
            just: Capacity with room for exactly these images, used if `capacity` is None.
        """
        with exact_float32():
            if capacity is not None and self._graphs is not None:
                try:
                    return self._graphs.run(images, sizes, capacity)
                except CaptureError as error:
                    logger.warning("graphs.off error=%s: packs run launch by launch", error)
                    self.release()
                    self._graphs = None
            room = capacity or just
            tables = device_tables(self._config, sizes, room, self._device)
            return self._network(_pixels(images, room, self._device), tables)

    def _own(self, outputs: Outputs, sizes: Sizes, maps: bool) -> PackOutputs:
        """Returns copies of the rows of the outputs that belong to images; no later run overwrites the copies."""
        count = len(sizes)
        found: list[list[Tensor]] = [[] for _ in range(count if maps else 0)]
        if maps:
            sides = [stage_sides(*size) for size in sizes]
            for stage, map_TC in enumerate(outputs.maps):
                areas = [height * width for height, width in (of_image[stage] for of_image in sides)]
                pieces = map_TC[: sum(areas)].clone().split(areas)
                for index, piece_NC in enumerate(pieces):
                    found[index].append(piece_NC.view(*sides[index][stage], -1).permute(2, 0, 1))
        return PackOutputs(
            embedding=outputs.embedding[:count].clone(),
            logits=None if outputs.logits is None else outputs.logits[:count].clone(),
            maps=tuple(map(tuple, found)),
        )


def _pixels(images: Sequence[Tensor], room: Capacity, device: torch.device) -> Tensor:
    """Returns the pixels X3 of all images on the device, one image after the other."""
    pixels_X3 = torch.empty(room.pixels, 3, dtype=torch.uint8, device=device)
    start = 0
    for image_HWC in images:
        stop = start + image_HWC.shape[0] * image_HWC.shape[1]
        pixels_X3[start:stop].view(image_HWC.shape).copy_(image_HWC)
        start = stop
    return pixels_X3
