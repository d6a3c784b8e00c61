"""Runs images of any sizes through the network together; no image's output depends on the other images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import linear

from model.cpu.forward import RaggedPVTv2
from model.cpu.layout import group_by_size
from model.network.config import IMAGENET_MEAN, IMAGENET_STD, RGB
from model.network.normalise import normalised
from model.network.pvt_v2 import PVTv2

if TYPE_CHECKING:
    from model.gpu.engine import DeviceSeconds, Engine, PackOutputs

Output = Literal["logits", "embedding", "maps"]
"""The name of an output of the network."""


@dataclass(frozen=True, kw_only=True)
class PackedOutput:
    """The outputs of some images, in the order of the images. An output that was not asked for is None.

    Letters in the shapes: N images, K classes, C channels.

    Attributes:
        logits: Scores of the classes before a softmax, (N, K), float32.
        embedding: Mean of the last map, (N, C), float32. The head computes the logits from the embedding.
        maps: Four maps CHW for each image, of the weights' dtype. Maps may be views that share memory and are not
            contiguous: a caller that keeps a map must copy the map.
        device_s: Function that returns the seconds that a GPU worked on the images; call the function after the outputs
            were read. None for images that ran on a CPU or, on a GPU, without an engine.
    """

    logits: Tensor | None
    embedding: Tensor | None
    maps: tuple[tuple[Tensor, ...], ...] | None
    device_s: "Callable[[], DeviceSeconds] | None" = None


class PackedPVTv2:
    """A network that is prepared to run packs. A pack is a list of images that go through the network together.

    Preparing copies weights into the layout that the device reads fastest; on a GPU, preparing also compiles kernels
    and tries them. Some weights are shared with the model: after a change of the model's weights, make a new
    `PackedPVTv2`. Only one thread at a time may use a prepared network.
    """

    @torch.inference_mode()
    def __init__(self, model: PVTv2, *, mean: RGB = IMAGENET_MEAN, std: RGB = IMAGENET_STD) -> None:
        """Prepares a network.

        Args:
            model: Network on any device, of any floating-point dtype.
            mean: RGB mean of pixels in [0, 1], which is subtracted from the pixels.
            std: RGB standard deviation of pixels in [0, 1], by which the pixels are divided.

        Raises:
            torch.OutOfMemoryError: The device has no memory for the prepared weights.
        """
        weight = next(model.parameters())
        self._config, self._device, self._dtype = model.config, weight.device, weight.dtype
        self._mean, self._std = mean, std
        # The head is float32, whatever the network's dtype, so that the scores keep their digits. The head is a small
        # share of the work.
        self._head = None if model.head is None else (model.head.weight.float(), model.head.bias.float())
        self._engine = _engine(model, mean, std)
        self._ragged = RaggedPVTv2(model) if self._engine is None else None

    def run(self, images: Sequence[Tensor], outputs: Sequence[Output] = ("logits",)) -> PackedOutput:
        """Returns the outputs of the images, on the network's device. No image's output depends on the other images.

        Args:
            images: Images HWC: RGB, uint8, values in [0, 255], of any sizes that the network takes, on any device.
            outputs: Names of the outputs to return.

        Raises:
            ValueError: An image is not HWC uint8 or is too small, an output is unknown, or logits are asked of a
                network without a head.
            torch.OutOfMemoryError: The images do not fit into the GPU's memory together; fewer images may fit.
        """
        return self.submit(images, outputs)()

    @torch.inference_mode()
    def submit(self, images: Sequence[Tensor], outputs: Sequence[Output] = ("logits",)) -> Callable[[], PackedOutput]:
        """Submits a pack, and returns a function that returns the outputs of the pack, as `run` does.

        On a GPU `submit` returns while the pack runs, so that the bytes of the next pack can be copied meanwhile:
        submit the next pack before you call the function of this pack. Work that uses the outputs of a pack waits for
        that pack only. On a CPU the pack has run when `submit` returns.

        Args:
            images: As for `run`.
            outputs: As for `run`.

        Raises:
            ValueError: As for `run`.
            torch.OutOfMemoryError: As for `run`.
        """
        self._check(images, outputs)
        if self._engine is None or not images:
            output = self._run_by_size(images, outputs)
            return lambda: output
        ticket = self._engine.submit(images, maps="maps" in outputs)
        return lambda: _chosen(ticket.result(), outputs, ticket.device_s)

    def _run_by_size(self, images: Sequence[Tensor], outputs: Sequence[Output]) -> PackedOutput:
        embedding_NC = torch.empty(len(images), self._config.embed_dims[-1], device=self._device)
        maps: list[tuple[Tensor, ...]] = [()] * len(images)
        groups = group_by_size([(image_HWC.shape[0], image_HWC.shape[1]) for image_HWC in images])
        if groups and self._ragged is not None:
            stages = self._ragged([self._pixels([images[i] for i in indices]) for indices in groups.values()])
            for place, indices in enumerate(groups.values()):
                maps_BHWC = [stage.groups()[place] for stage in stages]
                embedding_NC[indices] = maps_BHWC[-1].flatten(1, 2).mean(dim=1, dtype=torch.float32)
                if "maps" in outputs:
                    for position, index in enumerate(indices):
                        maps[index] = tuple(map_BHWC[position].permute(2, 0, 1) for map_BHWC in maps_BHWC)
        return PackedOutput(
            logits=linear(embedding_NC, *self._head) if "logits" in outputs and self._head is not None else None,
            embedding=embedding_NC if "embedding" in outputs else None,
            maps=tuple(maps) if "maps" in outputs else None,
        )

    def _pixels(self, images: list[Tensor]) -> Tensor:
        """Returns images of one size as the normalised batch BHWC that the network takes."""
        return normalised(torch.stack(images), self._mean, self._std, device=self._device, dtype=self._dtype)

    def _check(self, images: Sequence[Tensor], outputs: Sequence[Output]) -> None:
        shortest = self._config.min_side_px
        unknown = sorted(set(outputs) - set(get_args(Output)))
        if unknown or isinstance(outputs, str):
            raise ValueError(f"outputs must be some of {', '.join(get_args(Output))}, not {outputs!r}.")
        if "logits" in outputs and self._head is None:
            raise ValueError("This network has no head (num_classes is 0): ask for embedding or maps.")
        for index, image_HWC in enumerate(images):
            if image_HWC.dtype != torch.uint8 or image_HWC.dim() != 3 or image_HWC.shape[2] != 3:
                shape = tuple(image_HWC.shape)
                raise ValueError(
                    f"Image {index} must be HWC with 3 channels of uint8, not {shape} of {image_HWC.dtype}."
                )
            if min(image_HWC.shape[:2]) < shortest:
                raise ValueError(
                    f"An image of {image_HWC.shape[0]}x{image_HWC.shape[1]} px is too small: this network needs at "
                    f"least {shortest} px a side."
                )


def run_packed(
    model: PVTv2,
    images: Sequence[Tensor],
    *,
    mean: RGB = IMAGENET_MEAN,
    std: RGB = IMAGENET_STD,
    outputs: Sequence[Output] = ("logits",),
) -> PackedOutput:
    """Returns the same outputs as `PackedPVTv2(model, ...).run(images, outputs)`, on the model's device.

    The prepared network is kept for later calls until the model's weights change or the model is deleted.

    Args:
        model: As for `PackedPVTv2`.
        images: As for `PackedPVTv2.run`.
        mean: As for `PackedPVTv2`.
        std: As for `PackedPVTv2`.
        outputs: As for `PackedPVTv2.run`.

    Raises:
        ValueError: As for `PackedPVTv2.run`.
        torch.OutOfMemoryError: As for `PackedPVTv2.run`.
    """
    state = (mean, std, *((each.data_ptr(), each.dtype, _num_changes(each)) for each in model.parameters()))
    known = _PREPARED.get(model)
    if known is None or known[0] != state:
        known = None
        _PREPARED.pop(model, None)  # frees the memory of the old prepared network before the new one is made
        known = _PREPARED[model] = (state, PackedPVTv2(model, mean=mean, std=std))
    return known[1].run(images, outputs)


# `run_packed` gets a model in each call and cannot prepare the model each time: on a CPU in float32, preparing takes a
# seventh to a quarter of the time of one image of 224x224 (one thread: b0 20 ms beside 137 ms, b5 339 ms beside
# 1461 ms); on a GPU, preparing takes seconds. A prepared network is stored with the state of its model's weights, and
# is used while that state is the same. Programs that run many packs hold a `PackedPVTv2`, which needs no such check.
_PREPARED: WeakKeyDictionary[PVTv2, tuple[tuple[object, ...], PackedPVTv2]] = WeakKeyDictionary()


def _num_changes(parameter: Tensor) -> int:
    """Returns how often a tensor was changed in place; 0 for a tensor of inference mode, where torch does not count."""
    return 0 if parameter.is_inference() else parameter._version


def _engine(model: PVTv2, mean: RGB, std: RGB) -> "Engine | None":
    """Returns an engine for a network on a GPU; None for another device, or if no engine can be used."""
    if next(model.parameters()).device.type != "cuda":
        return None
    from model.gpu.trial import engine_for  # loads code that CPUs do not need

    return engine_for(model, mean=mean, std=std)


def _chosen(found: "PackOutputs", outputs: Sequence[Output], device_s: "Callable[[], DeviceSeconds]") -> PackedOutput:
    return PackedOutput(
        logits=found.logits if "logits" in outputs else None,
        embedding=found.embedding if "embedding" in outputs else None,
        maps=found.maps if "maps" in outputs else None,
        device_s=device_s,
    )
