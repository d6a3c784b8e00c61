"""Runs images of any sizes through the network together; each comes out as it would alone."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from model.pvt_v2 import PVTv2, to_embedding
from model.transformers_config import IMAGENET_MEAN, IMAGENET_STD, RGB

Output = Literal["logits", "embedding", "maps"]


@dataclass(frozen=True, kw_only=True)
class PackedOutput:
    """What was asked for, in the order of the images; the rest is None. N images, K classes, C channels.

    Attributes:
        logits: (N, K), float32.
        embedding: (N, C), float32: the mean of the last map, which the head reads.
        maps: for each image four maps CHW, of the weights' dtype. They may be views that share memory and are not
            contiguous: a caller that keeps one copies it.
    """

    logits: Tensor | None
    embedding: Tensor | None
    maps: tuple[tuple[Tensor, ...], ...] | None


@torch.inference_mode()
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
    """
    _check(model, images, outputs)
    indices_by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, image_HWC in enumerate(images):
        indices_by_size[tuple(image_HWC.shape)].append(index)

    device = next(model.parameters()).device
    embedding_NC = torch.empty(len(images), model.config.embed_dims[-1], device=device)
    maps: list[tuple[Tensor, ...]] = [()] * len(images)
    for indices in indices_by_size.values():
        images_BHWC = torch.stack([images[index] for index in indices])
        groups = model.forward_features(normalised(model, images_BHWC, mean, std))
        embedding_NC[indices] = to_embedding(groups[-1]).float()
        if "maps" in outputs:
            for position, index in enumerate(indices):
                maps[index] = tuple(map_BCHW[position] for map_BCHW in groups)
    return PackedOutput(
        logits=_logits(model, embedding_NC) if "logits" in outputs else None,
        embedding=embedding_NC if "embedding" in outputs else None,
        maps=tuple(maps) if "maps" in outputs else None,
    )


def normalised(model: PVTv2, images_BHWC: Tensor, mean: RGB, std: RGB) -> Tensor:
    """The pixels BCHW as the network wants them: on its device, of its dtype, channels-last.

    Bytes are sent to the device, and become floats there: a quarter of the traffic.
    """
    parameter = next(model.parameters())
    scale = torch.tensor([1 / (255 * s) for s in std], device=parameter.device)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=parameter.device)
    pixels_BHWC = images_BHWC.to(parameter.device).float().mul_(scale).add_(shift)
    return pixels_BHWC.to(parameter.dtype).permute(0, 3, 1, 2)


def _logits(model: PVTv2, embedding_NC: Tensor) -> Tensor:
    assert model.head is not None  # checked before the work
    return model.head(embedding_NC.to(model.head.weight.dtype)).float()


def _check(model: PVTv2, images: Sequence[Tensor], outputs: Sequence[Output]) -> None:
    unknown = sorted(set(outputs) - set(get_args(Output)))
    if unknown or isinstance(outputs, str):
        raise ValueError(f"outputs must be some of {', '.join(get_args(Output))}, not {outputs!r}.")
    if "logits" in outputs and model.head is None:
        raise ValueError("This network has no head (num_classes is 0): ask for embedding or maps.")
    for index, image_HWC in enumerate(images):
        if image_HWC.dtype != torch.uint8 or image_HWC.dim() != 3 or image_HWC.shape[2] != 3:
            shape = tuple(image_HWC.shape)
            raise ValueError(f"Image {index} must be HWC with 3 channels of uint8, not {shape} of {image_HWC.dtype}.")
