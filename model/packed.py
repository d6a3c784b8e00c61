"""Runs images of any sizes through the network together; each comes out as it would alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import linear

from model.cpu.forward import RaggedPVTv2
from model.cpu.layout import group_by_size
from model.network.normalise import IMAGENET_MEAN, IMAGENET_STD, RGB, normalised
from model.network.pvt_v2 import PVTv2

if TYPE_CHECKING:
    from model.gpu.engine import DeviceSeconds, Engine, PackOutputs

Output = Literal["logits", "embedding", "maps"]


@dataclass(frozen=True, kw_only=True)
class PackedOutput:
    """What was asked for, in the order of the images; the rest is None. N images, K classes, C channels.

    Attributes:
        logits: (N, K), float32.
        embedding: (N, C), float32: the mean of the last map, which the head reads.
        maps: for each image four maps CHW, of the weights' dtype. They may be views that share memory and are not
            contiguous: a caller that keeps one copies it.
        device_s: tells what the pack took a GPU, once its numbers were read; None elsewhere.
    """

    logits: Tensor | None
    embedding: Tensor | None
    maps: tuple[tuple[Tensor, ...], ...] | None
    device_s: "Callable[[], DeviceSeconds] | None" = None


def run_packed(
    model: PVTv2,
    images: Sequence[Tensor],
    *,
    mean: RGB = IMAGENET_MEAN,
    std: RGB = IMAGENET_STD,
    outputs: Sequence[Output] = ("logits",),
) -> PackedOutput:
    """What each image alone would give, on the model's device.

    Args:
        model: on any device, of any floating-point dtype.
        images: HWC, RGB, uint8, values in [0, 255], of any sizes that the network takes; on any device.
        mean: RGB, of pixels in [0, 1].
        std: as `mean`.
        outputs: what to give.

    Raises:
        ValueError: an image is not HWC uint8 or is too small, an output is unknown, or logits are asked of a network
            without a head.
        torch.OutOfMemoryError: the images do not fit into the GPU's memory together; fewer may.
    """
    return submit_packed(model, images, mean=mean, std=std, outputs=outputs)()


@torch.inference_mode()
def submit_packed(
    model: PVTv2,
    images: Sequence[Tensor],
    *,
    mean: RGB = IMAGENET_MEAN,
    std: RGB = IMAGENET_STD,
    outputs: Sequence[Output] = ("logits",),
) -> Callable[[], PackedOutput]:
    """As `run_packed`, but gives a function that gives the output.

    On a GPU this returns while the images run: hand in the next ones before asking for these, and their bytes travel
    meanwhile. What is done with an output waits for its own images only. Elsewhere the images have run.
    """
    _check(model, images, outputs)
    engine = _engine(model, mean, std) if images else None
    if engine is None:
        output = _run_by_size(model, images, mean, std, outputs)
        return lambda: output
    ticket = engine.submit(images, maps="maps" in outputs)
    return lambda: _chosen(ticket.result(), outputs, ticket.device_s)


def _run_by_size(
    model: PVTv2, images: Sequence[Tensor], mean: RGB, std: RGB, outputs: Sequence[Output]
) -> PackedOutput:
    device = next(model.parameters()).device
    embedding_NC = torch.empty(len(images), model.config.embed_dims[-1], device=device)
    maps: list[tuple[Tensor, ...]] = [()] * len(images)
    groups = group_by_size([(image_HWC.shape[0], image_HWC.shape[1]) for image_HWC in images])
    if groups:
        stacked = (torch.stack([images[index] for index in indices]) for indices in groups.values())
        stages = _ragged(model)([normalised(model, images_BHWC, mean, std) for images_BHWC in stacked])
        for place, indices in enumerate(groups.values()):
            maps_BHWC = [stage.groups()[place] for stage in stages]
            embedding_NC[indices] = maps_BHWC[-1].flatten(1, 2).mean(dim=1, dtype=torch.float32)
            if "maps" in outputs:
                for position, index in enumerate(indices):
                    maps[index] = tuple(map_BHWC[position].permute(2, 0, 1) for map_BHWC in maps_BHWC)
    return PackedOutput(
        logits=_logits(model, embedding_NC) if "logits" in outputs else None,
        embedding=embedding_NC if "embedding" in outputs else None,
        maps=tuple(maps) if "maps" in outputs else None,
    )


def _chosen(found: "PackOutputs", outputs: Sequence[Output], device_s: "Callable[[], DeviceSeconds]") -> PackedOutput:
    return PackedOutput(
        logits=found.logits if "logits" in outputs else None,
        embedding=found.embedding if "embedding" in outputs else None,
        maps=found.maps if "maps" in outputs else None,
        device_s=device_s,
    )


# What was prepared for each network, with what tells whether its weights are still the same.
_PREPARED: WeakKeyDictionary[PVTv2, tuple[tuple[object, ...], RaggedPVTv2]] = WeakKeyDictionary()
_ENGINES: WeakKeyDictionary[PVTv2, tuple[tuple[object, ...], "Engine | None"]] = WeakKeyDictionary()


def _engine(model: PVTv2, mean: RGB, std: RGB) -> "Engine | None":
    """For a network on a GPU, if there can be one."""
    if next(model.parameters()).device.type != "cuda":
        return None
    state = (*_state(model), mean, std)
    known = _ENGINES.get(model)
    if known is None or known[0] != state:
        from model.gpu.trial import engine_for  # nothing else needs it, nor triton

        known = None
        _ENGINES.pop(model, None)  # before the next one takes its memory
        known = (state, engine_for(model, mean=mean, std=std))
        _ENGINES[model] = known
    return known[1]


def _state(model: PVTv2) -> tuple[object, ...]:
    return tuple(
        (parameter.data_ptr(), parameter.dtype, 0 if parameter.is_inference() else parameter._version)
        for parameter in model.parameters()
    )


def _ragged(model: PVTv2) -> RaggedPVTv2:
    state = _state(model)
    known = _PREPARED.get(model)
    if known is None or known[0] != state:
        known = (state, RaggedPVTv2(model))
        _PREPARED[model] = known
    return known[1]


def _logits(model: PVTv2, embedding_NC: Tensor) -> Tensor:
    """In float32, whatever the network's dtype: it is little work, and a score keeps its digits."""
    assert model.head is not None  # checked before the work
    return linear(embedding_NC, model.head.weight.float(), model.head.bias.float())


def _check(model: PVTv2, images: Sequence[Tensor], outputs: Sequence[Output]) -> None:
    shortest = model.config.min_side_px
    unknown = sorted(set(outputs) - set(get_args(Output)))
    if unknown or isinstance(outputs, str):
        raise ValueError(f"outputs must be some of {', '.join(get_args(Output))}, not {outputs!r}.")
    if "logits" in outputs and model.head is None:
        raise ValueError("This network has no head (num_classes is 0): ask for embedding or maps.")
    for index, image_HWC in enumerate(images):
        if image_HWC.dtype != torch.uint8 or image_HWC.dim() != 3 or image_HWC.shape[2] != 3:
            shape = tuple(image_HWC.shape)
            raise ValueError(f"Image {index} must be HWC with 3 channels of uint8, not {shape} of {image_HWC.dtype}.")
        if min(image_HWC.shape[:2]) < shortest:
            raise ValueError(
                f"An image of {image_HWC.shape[0]}x{image_HWC.shape[1]} px is too small: this network needs at least "
                f"{shortest} px a side."
            )
