"""Checkpoints: from files or bytes to a network that is ready to run, strictly, and back to files."""

from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from model.checkpoint import CONFIG_FILE, PREPROCESSOR_FILE, WEIGHTS_FILE, CheckpointInfo, inspect_checkpoint
from model.config import PVTv2Config
from model.errors import CheckpointError
from model.pvt_v2 import PVTv2
from model.rename import TRANSFORMERS, TRANSFORMERS_BASE, upstream_names
from model.transformers_config import IMAGENET_MEAN, IMAGENET_STD, write_config, write_preprocessing


@dataclass(frozen=True, kw_only=True)
class LoadedModel(CheckpointInfo):
    """A network with its weights, and what came with them.

    Attributes:
        model: on the CPU, float32.
    """

    model: PVTv2


def load_checkpoint(source: str | Path, variant: str | None = None) -> LoadedModel:
    """The model in a folder that transformers saved, or in one `.safetensors` file.

    Args:
        source: the folder or the file. A `config.json` and a `preprocessor_config.json` in the same folder are used.
        variant: a key of `VARIANTS`, for weights without a `config.json`; found from their shapes where not given.

    Raises:
        CheckpointError: a file is missing or broken, or does not hold the tensors of the network it should.
    """
    path = Path(source)
    weights = path / WEIGHTS_FILE if path.is_dir() else path
    if not weights.is_file():
        raise CheckpointError(_missing_weights(path))
    try:
        return parse_checkpoint(
            weights.read_bytes(), _text_beside(weights, CONFIG_FILE), _text_beside(weights, PREPROCESSOR_FILE), variant
        )
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def parse_checkpoint(
    weights: bytes | bytearray | memoryview,
    config_json: str | None = None,
    preprocessor_json: str | None = None,
    variant: str | None = None,
) -> LoadedModel:
    """The model in the contents of a checkpoint's files. See `load_checkpoint`."""
    weights = bytes(weights)
    info = inspect_checkpoint(weights, config_json, preprocessor_json, variant)
    tensors = safetensors.torch.load(weights)
    # Memory for the parameters but no values: drawing them first would take longer than loading.
    with torch.device("meta"):
        model = PVTv2(info.config)
    model = model.to_empty(device="cpu")
    for name, parameter in model.named_parameters():
        parts = [tensors[upstream] for upstream in upstream_names(name, TRANSFORMERS, info.base)]
        parameter.copy_(parts[0] if len(parts) == 1 else torch.cat(parts))
    return LoadedModel(model=model, **vars(info))


def save_checkpoint(model: PVTv2, config: PVTv2Config, labels: tuple[str, ...] | None, folder: str | Path) -> None:
    """Writes a folder that transformers and `load_checkpoint` read; the same model gives the same bytes.

    Raises:
        ValueError: transformers cannot express the network, or the labels are not one per class.
    """
    texts = {
        CONFIG_FILE: write_config(config, labels),
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


def _missing_weights(path: Path) -> str:
    """What to do where a checkpoint has no weights that can be read."""
    if not path.is_dir():
        return f"There is no {path}: give a folder that transformers saved, or a .safetensors file."
    others = sorted(
        other.name for pattern in ("*.index.json", "*.bin", "*.pth", "*.pt") for other in path.glob(pattern)
    )
    if not others:
        return f"{path} has no {WEIGHTS_FILE}: give a folder that transformers saved, or a .safetensors file."
    return (
        f"{path} has no {WEIGHTS_FILE}, only {', '.join(others)}: sharded and pickled weights are not read. Load them "
        "with transformers, and save them again with save_pretrained(folder), which writes one safetensors file."
    )


def _text_beside(weights: Path, name: str) -> str | None:
    path = weights.parent / name
    return path.read_text("utf-8") if path.is_file() else None
