"""The peers' networks that `cpu.py` times: transformers' and timm's, with our weights."""

import copy
import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from model import IMAGENET_MEAN, IMAGENET_STD, PVTv2
from model.checkpoints.rename import NAMINGS, TRANSFORMERS_BASE, SourceFormat, upstream_names
from model.checkpoints.transformers_config import write_config

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A way to run a batch.

    Attributes:
        autocast: True keeps the weights in float32, and torch chooses what runs in bfloat16; False converts the
            weights.
        channels_last: True stores weights and pixels in the layout channels-last; False keeps the layout of the
            library.
    """

    precision: Precision
    autocast: bool = False
    channels_last: bool = False

    def __str__(self) -> str:
        words = [self.precision]
        words += ["autocast"] if self.autocast else []
        words += ["channels last"] if self.channels_last else []
        return " ".join(words)


def settings(precision: Precision) -> list[Setting]:
    """Returns all settings for a precision, the memory layout of the libraries first."""
    casts = [False, True] if precision == "bf16" else [False]
    return [
        Setting(precision=precision, autocast=autocast, channels_last=channels_last)
        for channels_last in (False, True)
        for autocast in casts
    ]


class Peer:
    """A network that takes batches of one size."""

    def __init__(self, network: nn.Module, logits: Callable[[Any], Tensor]) -> None:
        """Keeps a network.

        Args:
            network: Network in float32, in its mode for inference.
            logits: Function from the network's return value to the logits.
        """
        self._network, self._logits = network, logits
        self._prepared: dict[tuple[torch.dtype, bool], nn.Module] = {}

    @torch.inference_mode()
    def __call__(self, images: Sequence[Tensor], setting: Setting) -> Tensor:
        """Returns the logits (N, K), float32, of images HWC uint8 of one size."""
        dtype = torch.float32 if setting.autocast or setting.precision == "fp32" else torch.bfloat16
        layout = torch.channels_last if setting.channels_last else torch.contiguous_format
        pixels = normalised(torch.stack(list(images))).permute(0, 3, 1, 2).to(dtype).contiguous(memory_format=layout)
        network = self._network_of(dtype, setting.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=setting.autocast):
            return self._logits(network(pixels)).float()

    def _network_of(self, dtype: torch.dtype, channels_last: bool) -> nn.Module:
        key = (dtype, channels_last)
        if key not in self._prepared:
            layout = torch.channels_last if channels_last else torch.preserve_format
            self._prepared[key] = copy.deepcopy(self._network).to(dtype=dtype, memory_format=layout)
        return self._prepared[key]


def normalised(images_BHWC: Tensor) -> Tensor:
    """Returns images of bytes as float32, normalised with ImageNet's mean and standard deviation."""
    scale, shift = (
        torch.tensor(IMAGENET_STD).mul(255).reciprocal(),
        torch.tensor(IMAGENET_MEAN) / torch.tensor(IMAGENET_STD),
    )
    return images_BHWC.float().mul_(scale).sub_(shift)


def peers(ours: PVTv2, variant: str) -> dict[str, Peer]:
    """Returns the networks of the installed libraries, with our weights."""
    found = {"transformers": Peer(_transformers(ours), lambda output: output.logits)}
    if importlib.util.find_spec("timm") is not None:
        found["timm"] = Peer(_timm(ours, variant), lambda output: output)
    return found


def _transformers(ours: PVTv2) -> nn.Module:
    from transformers import PvtV2Config, PvtV2ForImageClassification

    network = PvtV2ForImageClassification(PvtV2Config.from_dict(json.loads(write_config(ours.config, None))))
    return _with_weights(network, ours, "transformers", TRANSFORMERS_BASE)


def _timm(ours: PVTv2, variant: str) -> nn.Module:
    import timm

    network = timm.create_model(f"pvt_v2_{variant.removesuffix('near').replace('-', '_')}")
    for module in network.modules():
        if isinstance(module, nn.LayerNorm):
            # timm's epsilons differ from layer to layer; all contenders must be the same network.
            module.eps = ours.config.block_eps
    return _with_weights(network, ours, "timm", "")


def _with_weights(network: nn.Module, ours: PVTv2, source: SourceFormat, base: str) -> nn.Module:
    (table,) = (naming.table for naming in NAMINGS if naming.source_format == source)
    state: dict[str, Tensor] = {}
    for name, parameter in ours.state_dict().items():
        names = upstream_names(name, table, base)
        state |= dict(zip(names, parameter.chunk(len(names)), strict=True))
    network.load_state_dict(state)
    return network.eval()
