"""What a checkpoint is, told from its files without torch: the network, and whether its tensors are all there."""

import hashlib
from dataclasses import dataclass, replace

import safetensors

from model.config import VARIANTS, PVTv2Config, structure, variant_of
from model.errors import CheckpointError
from model.matching import TensorInfo, Tensors, check_match, find_variant, with_settings
from model.rename import TRANSFORMERS, TRANSFORMERS_BASE
from model.transformers_config import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    RGB,
    Description,
    read_config,
    read_preprocessing,
)

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """What is known of a checkpoint whose tensors are those of its network.

    Attributes:
        labels: one per class; None where the checkpoint has no names for its classes.
        mean, std: RGB, of pixels in [0, 1], for `run_packed`.
        digest: SHA-256 of the weights file's bytes, in hex.
        source_format: whose names the checkpoint uses.
        base: what the checkpoint puts before the names of the backbone's tensors.
    """

    config: PVTv2Config
    labels: tuple[str, ...] | None
    mean: RGB
    std: RGB
    digest: str
    source_format: str
    base: str


def inspect_checkpoint(
    weights: bytes, config_json: str | None = None, preprocessor_json: str | None = None, variant: str | None = None
) -> CheckpointInfo:
    """What the contents of a checkpoint's files are.

    Args:
        weights: of a safetensors file.
        config_json, preprocessor_json: the files beside it, as text.
        variant: a key of `VARIANTS`, for weights without a `config.json`; found from their shapes where not given.

    Raises:
        CheckpointError: a file is broken, or does not hold the tensors of the network it should.
    """
    if variant is not None and variant not in VARIANTS:
        raise CheckpointError(f"There is no variant {variant!r}: choose one of {', '.join(VARIANTS)}.")
    tensors = _read_header(weights)
    base = TRANSFORMERS_BASE if any(name.startswith(TRANSFORMERS_BASE) for name in tensors) else ""
    if f"{base}encoder.layers.0.patch_embedding.proj.weight" not in tensors:
        found = ", ".join(sorted(tensors)[:3]) or "none"
        raise CheckpointError(f"The tensors are not those of a PVTv2 saved by transformers (the first are: {found}).")

    described = read_config(config_json) if config_json is not None else None
    config = _config(tensors, base, described, variant)
    check_match(config, tensors, TRANSFORMERS, base)
    mean, std = (
        read_preprocessing(preprocessor_json) if preprocessor_json is not None else (IMAGENET_MEAN, IMAGENET_STD)
    )
    return CheckpointInfo(
        config=config,
        labels=described.labels if described and config.num_classes else None,
        mean=mean,
        std=std,
        digest=hashlib.sha256(weights).hexdigest(),
        source_format="transformers",
        base=base,
    )


def _read_header(weights: bytes) -> Tensors:
    if weights.startswith(b"version https://git-lfs"):
        raise CheckpointError("The weights are a Git LFS pointer: fetch the file itself with `git lfs pull`.")
    try:
        found = safetensors.deserialize(weights)
    except safetensors.SafetensorError as error:
        raise CheckpointError(
            f"The weights are no whole safetensors file ({error}): they are of another format, or were cut short."
        ) from error
    return {name: TensorInfo(tuple(entry["shape"]), entry["dtype"].startswith(("F", "BF"))) for name, entry in found}


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
    return described or (head.shape[0] if len(head.shape) == 2 else 1)
