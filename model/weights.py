"""Checkpoints: from files or bytes to a network that is ready to run, strictly, and back to files."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors
import safetensors.torch

from model.config import VARIANTS, PVTv2Config, structure, variant_of
from model.errors import CheckpointError as CheckpointError
from model.matching import Tensors, build, find_variant, with_settings
from model.pvt_v2 import PVTv2
from model.rename import TRANSFORMERS, TRANSFORMERS_BASE, upstream_names
from model.transformers_config import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    RGB,
    Description,
    read_config,
    read_preprocessing,
    write_config,
    write_preprocessing,
)

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A network with its weights, and what came with them.

    Attributes:
        model: on the CPU, float32.
        labels: one per class; None where the checkpoint has no names for its classes.
        mean, std: RGB, of pixels in [0, 1], for `run_packed`.
        digest: SHA-256 of the weights file's bytes, in hex.
        source_format: whose names the checkpoint uses.
    """

    model: PVTv2
    config: PVTv2Config
    labels: tuple[str, ...] | None
    mean: RGB
    std: RGB
    digest: str
    source_format: str


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
    if variant is not None and variant not in VARIANTS:
        raise CheckpointError(f"There is no variant {variant!r}: choose one of {', '.join(VARIANTS)}.")
    weights = bytes(weights)
    tensors = _read_safetensors(weights)
    base = TRANSFORMERS_BASE if any(name.startswith(TRANSFORMERS_BASE) for name in tensors) else ""
    if f"{base}encoder.layers.0.patch_embedding.proj.weight" not in tensors:
        found = ", ".join(sorted(tensors)[:3]) or "none"
        raise CheckpointError(f"The tensors are not those of a PVTv2 saved by transformers (the first are: {found}).")

    described = read_config(config_json) if config_json is not None else None
    config = _config(tensors, base, described, variant)
    mean, std = (
        read_preprocessing(preprocessor_json) if preprocessor_json is not None else (IMAGENET_MEAN, IMAGENET_STD)
    )
    return LoadedModel(
        model=build(config, tensors, TRANSFORMERS, base),
        config=config,
        labels=described.labels if described and config.num_classes else None,
        mean=mean,
        std=std,
        digest=hashlib.sha256(weights).hexdigest(),
        source_format="transformers",
    )


def save_checkpoint(model: PVTv2, config: PVTv2Config, labels: tuple[str, ...] | None, folder: str | Path) -> None:
    """Writes a folder that transformers and `load_checkpoint` read; the same model gives the same bytes.

    Raises:
        ValueError: transformers cannot express the network, or the labels are not one per class.
    """
    texts = {
        CONFIG_FILE: write_config(config, labels),
        PREPROCESSOR_FILE: write_preprocessing(IMAGENET_MEAN, IMAGENET_STD),
    }
    tensors: Tensors = {}
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


def _read_safetensors(weights: bytes) -> Tensors:
    if weights.startswith(b"version https://git-lfs"):
        raise CheckpointError("The weights are a Git LFS pointer: fetch the file itself with `git lfs pull`.")
    try:
        return safetensors.torch.load(weights)
    except safetensors.SafetensorError as error:
        raise CheckpointError(
            f"The weights are no whole safetensors file ({error}): they are of another format, or were cut short."
        ) from error


def _config(tensors: Tensors, base: str, described: Description | None, variant: str | None) -> PVTv2Config:
    """The configuration that `config.json`, `variant` or the tensors themselves call for, in this order."""
    num_classes = _num_classes(tensors, base, described.num_classes if described else None)
    if described is not None:
        if variant is not None and structure(described.config) != structure(VARIANTS[variant]):
            other = variant_of(described.config) or "another network"
            raise CheckpointError(
                f"config.json describes {other}, not {variant}: leave the variant out, or correct it."
            )
        return replace(described.config, num_classes=num_classes)
    has_bias = f"{base}encoder.layers.0.blocks.0.attention.query.bias" in tensors
    like = replace(VARIANTS["b0"], num_classes=num_classes, qkv_bias=has_bias)
    closest, num_wrong = find_variant(like, tensors, TRANSFORMERS, base)
    if variant is not None and variant != closest and num_wrong == 0:
        raise CheckpointError(
            f"The tensors are those of {closest}, not {variant}: leave the variant out, or correct it."
        )
    return with_settings(VARIANTS[variant or closest], like)


def _num_classes(tensors: Tensors, base: str, described: int | None) -> int:
    """Rows of the head; 0 for a backbone without one. A classifier whose head was lost is no backbone."""
    head = tensors.get("classifier.weight")
    if head is None:
        return (described or 0) if base else 0
    return described or (head.shape[0] if head.dim() == 2 else 1)
