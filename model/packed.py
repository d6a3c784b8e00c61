"""Runs images of any sizes through the network together; each image gives what it gives alone."""

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
"""Something that the network gives for an image."""


@dataclass(frozen=True, kw_only=True)
class PackedOutput:
    """The outputs that were asked for, in the order of the images; the others are None.

    N images, K classes, C channels.

    Attributes:
        logits: (N, K), float32.
        embedding: (N, C), float32: the mean of the last map, which the head reads.
        maps: Four maps CHW for each image, of the weights' dtype. Maps may be views that share memory and are not
            contiguous: a caller that keeps a map copies it.
        device_s: Returns the seconds that the pack took a GPU; callable once the outputs were read. None elsewhere.
    """

    logits: Tensor | None
    embedding: Tensor | None
    maps: tuple[tuple[Tensor, ...], ...] | None
    device_s: "Callable[[], DeviceSeconds] | None" = None


class PackedPVTv2:
    """A network that is prepared to run packs, with the weights that it had at that time.

    Preparing copies weights into the layout that the device reads fastest; on a GPU it also compiles kernels and tries
    them. Some weights are not copied: after the weights of the model change, prepare it again. One thread at a time may
    use a prepared network.
    """

    @torch.inference_mode()
    def __init__(self, model: PVTv2, *, mean: RGB = IMAGENET_MEAN, std: RGB = IMAGENET_STD) -> None:
        """Prepares a network.

        Args:
            model: On any device, of any floating-point dtype.
            mean: RGB mean of pixels in [0, 1], which is subtracted from the pixels.
            std: RGB standard deviation of pixels in [0, 1], by which the pixels are divided.

        Raises:
            torch.OutOfMemoryError: The device has no memory for the prepared weights.
        """
        weight = next(model.parameters())
        self._config, self._device, self._dtype = model.config, weight.device, weight.dtype
        self._mean, self._std = mean, std
        # The head is a small share of the work. In float32, whatever the network's dtype, scores keep their digits.
        self._head = None if model.head is None else (model.head.weight.float(), model.head.bias.float())
        self._engine = _engine(model, mean, std)
        self._ragged = RaggedPVTv2(model) if self._engine is None else None

    def run(self, images: Sequence[Tensor], outputs: Sequence[Output] = ("logits",)) -> PackedOutput:
        """Returns what each image alone would give, on the network's device.

        Args:
            images: HWC, RGB, uint8, values in [0, 255], of any sizes that the network takes; on any device.
            outputs: The outputs to return.

        Raises:
            ValueError: An image is not HWC uint8 or is too small, an output is unknown, or logits are asked of a
                network without a head.
            torch.OutOfMemoryError: The images do not fit into the GPU's memory together; fewer images may fit.
        """
        return self.submit(images, outputs)()

    @torch.inference_mode()
    def submit(self, images: Sequence[Tensor], outputs: Sequence[Output] = ("logits",)) -> Callable[[], PackedOutput]:
        """Returns a function that returns the output of `run`.

        On a GPU `submit` returns while the images run, so that the bytes of the next pack can travel meanwhile: submit
        the next pack before you call the function of this one. Work that uses an output waits for its own pack only.
        On a CPU the images have run when `submit` returns.

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
    """Returns what each image alone would give, on the model's device: `PackedPVTv2(model, ...).run(images, outputs)`.

    The prepared network is kept until the model's weights change or the model is gone.

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
        _PREPARED.pop(model, None)  # frees its memory before the next one takes its own
        known = _PREPARED[model] = (state, PackedPVTv2(model, mean=mean, std=std))
    return known[1].run(images, outputs)


# `run_packed` gets a model in each call and cannot prepare it each time: on a CPU in float32, preparing takes a seventh
# to a quarter of the time of one image of 224x224 (one thread: b0 20 ms beside 137 ms, b5 339 ms beside 1461 ms); on a
# GPU it takes seconds. A prepared network is stored with the state of its model's weights, and is used while that state
# is the same. Programs that run many packs hold a `PackedPVTv2` of their own, which needs no such check.
_PREPARED: WeakKeyDictionary[PVTv2, tuple[tuple[object, ...], PackedPVTv2]] = WeakKeyDictionary()


def _num_changes(parameter: Tensor) -> int:
    """Returns how often a tensor was changed in place; 0 for a tensor of inference mode, where torch does not count."""
    return 0 if parameter.is_inference() else parameter._version


def _engine(model: PVTv2, mean: RGB, std: RGB) -> "Engine | None":
    """Returns an engine for a network on a GPU, if there can be one."""
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
