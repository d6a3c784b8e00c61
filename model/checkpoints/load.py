"""Loads checkpoints into networks, strictly: every tensor must fit. Saves networks as checkpoints."""

from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from model.checkpoints.checkpoint import CheckpointInfo, inspect_checkpoint, is_pickled
from model.checkpoints.files import CONFIG_FILE, PREPROCESSOR_FILE, WEIGHTS_FILE
from model.checkpoints.pickled import read_pickled
from model.checkpoints.rename import TRANSFORMERS, TRANSFORMERS_BASE, upstream_names
from model.checkpoints.sources import read_files
from model.checkpoints.transformers_config import write_config, write_preprocessing
from model.errors import CheckpointError
from model.network.config import IMAGENET_MEAN, IMAGENET_STD, PVTv2Config
from model.network.pvt_v2 import PVTv2


@dataclass(frozen=True, kw_only=True)
class LoadedModel(CheckpointInfo):
    """A network with its weights, and the description of its checkpoint.

    Attributes:
        model: The network, on the CPU, in float32.
    """

    model: PVTv2


def load_checkpoint(source: str | Path, variant: str | None = None) -> LoadedModel:
    """Returns the model of a checkpoint of transformers, timm or the authors' repository.

    Args:
        source: Local path or `s3://` URI (read with boto3's credentials) of a folder, or of a weights file
            (`.safetensors`, `.pth`, `.pt`, `.bin`, `.ckpt`, `.pth.tar`); or `hf://org/name[@revision]`. A `config.json`
            and a `preprocessor_config.json` beside the weights are read too.
        variant: Key of `VARIANTS`, for weights without a `config.json`; by default found from the shapes.

    Raises:
        CheckpointError: A file is missing or broken, the tensors do not fit the network that the files describe, or a
            weight, mean, standard deviation or epsilon is not finite.
    """
    files = read_files(source)
    try:
        return parse_checkpoint(files.weights, files.config_json, files.preprocessor_json, variant)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error


def parse_checkpoint(
    weights: bytes | bytearray | memoryview,
    config_json: str | None = None,
    preprocessor_json: str | None = None,
    variant: str | None = None,
    *,
    with_head: bool = True,
    with_labels: bool = True,
) -> LoadedModel:
    """Returns the model of a checkpoint from the contents of its files.

    See `load_checkpoint`, and for `with_head` and `with_labels` see `inspect_checkpoint`.
    """
    weights = bytes(weights)
    info = inspect_checkpoint(
        weights, config_json, preprocessor_json, variant, with_head=with_head, with_labels=with_labels
    )
    tensors = read_pickled(weights) if is_pickled(weights) else safetensors.torch.load(weights)
    # The parameters get memory but no values: drawing initial values would take longer than loading.
    with torch.device("meta"):
        model = PVTv2(info.config)
    model = model.to_empty(device="cpu")
    for name, parameter in model.named_parameters():
        parts = [tensors[upstream] for upstream in upstream_names(name, info.naming.table, info.base)]
        parameter.copy_(parts[0] if len(parts) == 1 else torch.cat(parts))
    return LoadedModel(model=model, **vars(info))


def save_checkpoint(
    model: PVTv2,
    config: PVTv2Config,
    labels: tuple[str, ...] | None,
    folder: str | Path,
    shorter_px: tuple[int, int] | None = None,
) -> None:
    """Writes a folder that transformers and `load_checkpoint` read; the same model gives the same bytes.

    Args:
        shorter_px: Least and largest shorter side in pixels of the images in training; None does not say them.

    Raises:
        ValueError: transformers cannot express the network, or there is not one label per class.
    """
    texts = {
        CONFIG_FILE: write_config(config, labels, shorter_px),
        PREPROCESSOR_FILE: write_preprocessing(IMAGENET_MEAN, IMAGENET_STD),
    }
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.state_dict().items():
        names = upstream_names(name, TRANSFORMERS, TRANSFORMERS_BASE)
        parts = parameter.cpu().chunk(len(names))
        tensors |= {upstream: part.contiguous() for upstream, part in zip(names, parts, strict=True)}
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        (path / file).write_text(text, "utf-8")
    # transformers refuses a file that does not say which framework it is for.
    (path / WEIGHTS_FILE).write_bytes(safetensors.torch.save(tensors, {"format": "pt"}))
