"""Runs packs on a GPU: a few captured graphs of fixed capacity serve images of any sizes.

A pack goes to the smallest capacity that has room for it. Its bytes travel while the pack before runs, and one launch
replays the whole network, where it would be some hundred launches. What does not fit the largest capacity is split;
one image that is too large for it runs launch by launch, in room of its own.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.gpu.device_errors import CaptureError, is_out_of_memory
from model.gpu.forward import Outputs, TabledPVTv2
from model.gpu.graphs import Graphs
from model.gpu.operations import Operations
from model.gpu.tables import Capacity, Sizes, capacity_for, capacity_of, device_tables, fits, needs, split
from model.gpu.upload import Copy
from model.network.config import PVTv2Config, stage_sides
from model.network.exact_float32 import exact_float32
from model.network.normalise import RGB
from model.network.pvt_v2 import PVTv2

logger = logging.getLogger(__name__)

MAX_TOKENS = 256 * 1024  # of stage 1, in the largest capacity
# Capacities as parts of the largest: a pack that just does not fit one fills two thirds of the next.
_PARTS = (1.0, 0.75, 0.5, 0.375, 0.25, 0.1875, 0.125, 0.0625, 0.03125)


@dataclass(frozen=True, slots=True)
class PackOutputs:
    """What each image of a pack alone would give, in the order of the images. N images, C channels, K classes.

    Attributes:
        embedding: NC, float32.
        logits: NK, float32; None without a head.
        maps: for each image four maps CHW, of the network's dtype, as views; empty unless asked for.
    """

    embedding: Tensor
    logits: Tensor | None
    maps: tuple[tuple[Tensor, ...], ...]

    def owned(self) -> list[Tensor]:
        """One tensor for each piece of memory that the outputs lie in."""
        logits = () if self.logits is None else (self.logits,)
        tensors = (self.embedding, *logits, *(map_CHW for of_image in self.maps for map_CHW in of_image))
        return list({tensor.untyped_storage().data_ptr(): tensor for tensor in tensors}.values())


class DeviceSeconds(NamedTuple):
    """What a pack took a GPU.

    Attributes:
        compute: from when its turn came to its outputs; waiting for the pack's own bytes is in it.
        upload: copying it to the device, beside the pack before; 0 where its images were there, or no graph runs it.
    """

    compute: float
    upload: float


class Ticket:
    """A pack that was handed in; its outputs may still be under way."""

    def __init__(
        self,
        outputs: PackOutputs,
        begun: torch.cuda.Event | None = None,
        done: torch.cuda.Event | None = None,
        copies: Sequence[Copy] = (),
    ) -> None:
        """Of a pack that has run, or that runs on a GPU between two events that keep time, after these copies to it."""
        self._outputs, self._begun, self._done, self._copies = outputs, begun, done, copies

    def result(self) -> PackOutputs:
        """The outputs, ready for work that is queued after this on the current stream of their device.

        That work waits for this pack alone, not for packs that were handed in later.
        """
        if self._done is not None:
            stream = torch.cuda.current_stream(self._outputs.embedding.device)
            stream.wait_event(self._done)
            for tensor in self._outputs.owned():
                tensor.record_stream(stream)
        return self._outputs

    def device_s(self) -> DeviceSeconds:
        """What the pack took the device, once its outputs were read; elsewhere than on a GPU nothing."""
        if self._begun is None or self._done is None:
            return DeviceSeconds(0.0, 0.0)
        upload_ms = sum(copy.begun.elapsed_time(copy.done) for copy in self._copies)
        return DeviceSeconds(self._begun.elapsed_time(self._done) / 1e3, upload_ms / 1e3)


class Engine:
    """A network, ready for packs of images of any sizes, on its device and of its dtype.

    One thread at a time may use it. On a device that is no GPU packs run operation by operation, for tests.
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
        """Prepares the weights as they are now.

        Args:
            model: of float32, bfloat16 or float16.
            operations: that run on the model's device.
            mean: RGB, of pixels in [0, 1].
            std: as `mean`.
            max_tokens: of stage 1, in the largest capacity.
            use_graphs: False runs every pack launch by launch.
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
            # The weights were prepared on another stream than the one that reads them.
            torch.cuda.synchronize(self._device)

    @torch.inference_mode()
    def submit(self, images: Sequence[Tensor], *, maps: bool = False) -> Ticket:
        """Hands in a pack; on a GPU this returns while it runs.

        Args:
            images: at least one; HWC, RGB, uint8, of sizes that the network takes, on any device. Images in the host's
                memory are copied before this returns.
            maps: whether the outputs have maps.

        Raises:
            torch.OutOfMemoryError: there is no room for it on the device. What this engine held for packs of that size
                was let go; smaller ones may fit.
        """
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        needed = needs(self._config, sizes)
        if self._stream is None:
            return Ticket(self._run_parts(images, sizes, needed, maps))
        on_device = [image for image in images if image.is_cuda]
        if on_device:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        for image in on_device:  # their owner may let go of them before they are read
            image.record_stream(self._stream)
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            begun, done = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begun.record(self._stream)
            outputs = self._run_parts(images, sizes, needed, maps)
            done.record(self._stream)
            copies = self._graphs.take_copies() if self._graphs is not None else ()
        return Ticket(outputs, begun, done, copies)

    def release(self) -> None:
        """Lets go of all graphs; packs that come later capture them again."""
        if self._graphs is not None:
            self._graphs.release()

    def num_graphs(self) -> int:
        """Graphs that are captured."""
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
        """Runs images for which there is room together."""
        capacity = next((capacity for capacity in self._capacities if fits(needed, capacity)), None)
        just = capacity_for(needed)
        try:
            return self._own(self._run(images, sizes, capacity, just), sizes, maps)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            message = str(error)
        # Outside the handler: the exception's frames hold the activations.
        had_graphs = self.num_graphs() > 0
        self.release()
        if capacity is None and had_graphs:
            return self._own(self._run(images, sizes, None, just), sizes, maps)
        if capacity is not None:
            self._capacities = [known for known in self._capacities if known.tokens[0] < capacity.tokens[0]]
            logger.warning("capacity.dropped tokens=%d: out of memory", capacity.tokens[0])
        raise torch.OutOfMemoryError(message)

    def _run(self, images: Sequence[Tensor], sizes: Sizes, capacity: Capacity | None, just: Capacity) -> Outputs:
        """Outputs that the next run may write over.

        Args:
            capacity: of the graph to use; None: of none.
            just: room for these images.
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
        """Copies of what belongs to the images."""
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
    """The pixels X3 of all images on the device, one image after the other."""
    pixels_X3 = torch.empty(room.pixels, 3, dtype=torch.uint8, device=device)
    start = 0
    for image_HWC in images:
        stop = start + image_HWC.shape[0] * image_HWC.shape[1]
        pixels_X3[start:stop].view(image_HWC.shape).copy_(image_HWC)
        start = stop
    return pixels_X3
