"""Inspects the files of a checkpoint: which network the files describe, and whether the tensors fit that network.

Files in the safetensors format are inspected without torch; files that torch pickled need torch.
"""

import hashlib
from dataclasses import dataclass, replace

import safetensors

from model.checkpoints.matching import TensorInfo, Tensors, check_match, find_variant, with_settings
from model.checkpoints.rename import Naming, SourceFormat, find_naming, upstream_names
from model.checkpoints.timm_config import read_timm_config
from model.checkpoints.transformers_config import Description, json_object, read_config, read_preprocessing
from model.errors import CheckpointError
from model.network.config import IMAGENET_MEAN, IMAGENET_STD, RGB, VARIANTS, PVTv2Config, structure, variant_of
from model.network.labels import NUM_IMAGENET_CLASSES, imagenet_labels

_BLOCK_EPS = 1e-6  # epsilon of the norms in the blocks, the same in all three sources


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """The description of a checkpoint whose tensors fit its network.

    Attributes:
        config: Configuration of the network.
        labels: One label per class; None if the checkpoint has no labels. A checkpoint of a thousand classes without
            labels gets ImageNet's labels.
        mean: RGB mean of pixels in [0, 1], for `run_packed`.
        std: RGB standard deviation of pixels in [0, 1], for `run_packed`.
        digest: SHA-256 of the bytes of the weights file, in hex.
        naming: Names that the checkpoint's source gives to tensors.
        base: Prefix of the names of the backbone's tensors.
    """

    config: PVTv2Config
    labels: tuple[str, ...] | None
    mean: RGB
    std: RGB
    digest: str
    naming: Naming
    base: str

    @property
    def source_format(self) -> SourceFormat:
        """The source whose names the checkpoint uses: `transformers`, `timm`, or `original` (authors' repository)."""
        return self.naming.source_format


def inspect_checkpoint(
    weights: bytes, config_json: str | None = None, preprocessor_json: str | None = None, variant: str | None = None
) -> CheckpointInfo:
    """Returns the description of a checkpoint from the contents of its files.

    Args:
        weights: Bytes of the weights file: safetensors, or a file of `torch.save`.
        config_json: Text of `config.json`, if there is such a file.
        preprocessor_json: Text of `preprocessor_config.json`, if there is such a file.
        variant: Key of `VARIANTS`, for weights without a `config.json`; by default found from the shapes.

    Raises:
        CheckpointError: A file is broken, or the tensors do not fit the network that the files describe.
    """
    if variant is not None and variant not in VARIANTS:
        raise CheckpointError(f"There is no variant {variant!r}: choose one of {', '.join(VARIANTS)}.")
    tensors = _tensor_infos(weights)
    naming, base = _naming(tensors)
    described = _describe(config_json) if config_json is not None else None
    config = _config(tensors, naming, base, described, variant)
    check_match(config, tensors, naming.table, base)
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if preprocessor_json is not None:
        mean, std = read_preprocessing(preprocessor_json)
    elif described is not None:
        mean, std = described.mean or mean, described.std or std
    labels = described.labels if described and config.num_classes else None
    if labels is None and config.num_classes == NUM_IMAGENET_CLASSES:
        labels = imagenet_labels()
    return CheckpointInfo(
        config=config,
        labels=labels,
        mean=mean,
        std=std,
        digest=hashlib.sha256(weights).hexdigest(),
        naming=naming,
        base=base,
    )


def is_pickled(weights: bytes) -> bool:
    """Returns whether the bytes are a file of `torch.save`: a zip archive, or the bare pickle of early versions."""
    return weights.startswith(b"PK\x03\x04") or (weights[:1] == b"\x80" and weights[8:9] != b"{")


def _tensor_infos(weights: bytes) -> Tensors:
    if weights.startswith(b"version https://git-lfs"):
        raise CheckpointError("The weights are a Git LFS pointer: fetch the file itself with `git lfs pull`.")
    if is_pickled(weights):
        from model.checkpoints.pickled import read_pickled  # loads torch, which safetensors need not

        state = read_pickled(weights)
        return {name: TensorInfo(tuple(value.shape), value.is_floating_point()) for name, value in state.items()}
    try:
        found = safetensors.deserialize(weights)
    except safetensors.SafetensorError as error:
        raise CheckpointError(
            f"The weights are no whole safetensors file ({error}): they are of another format, or were cut short."
        ) from error
    return {name: TensorInfo(tuple(entry["shape"]), entry["dtype"].startswith(("F", "BF"))) for name, entry in found}


def _naming(tensors: Tensors) -> tuple[Naming, str]:
    found = find_naming(tensors)
    if found is None:
        first = ", ".join(sorted(tensors)[:3]) or "none"
        raise CheckpointError(
            f"The tensors are not those of a PVTv2 of transformers, timm or the original (the first are: {first})."
        )
    return found


def _describe(config_json: str) -> Description:
    raw = json_object(config_json, "config.json")
    return read_timm_config(raw) if "architecture" in raw and "model_type" not in raw else read_config(raw)


def _config(
    tensors: Tensors, naming: Naming, base: str, described: Description | None, variant: str | None
) -> PVTv2Config:
    """Returns the configuration of the network: from `config.json`, else from `variant`, else from the tensors' shapes.

    The epsilons follow from the source of the tensors; for transformers, `config.json` gives the epsilons.
    """
    num_classes = _num_classes(tensors, naming, base, described.num_classes if described else None)
    if described is not None:
        if variant is not None and structure(described.config) != structure(VARIANTS[variant]):
            other = variant_of(described.config) or "another network"
            raise CheckpointError(
                f"config.json describes {other}, not {variant}: leave the variant out, or correct it."
            )
        config = replace(described.config, num_classes=num_classes)
        if naming.source_format == "transformers":
            return config
        return replace(config, block_eps=_BLOCK_EPS, embed_eps=naming.embed_eps)
    (query_bias,) = upstream_names("stages.0.blocks.0.attention.q.bias", naming.table, base)
    like = replace(
        VARIANTS["b0"],
        num_classes=num_classes,
        qkv_bias=query_bias in tensors,
        block_eps=_BLOCK_EPS,
        embed_eps=naming.embed_eps,
    )
    closest, num_wrong = find_variant(like, tensors, naming.table, base)
    if variant is not None and variant != closest and num_wrong == 0:
        raise CheckpointError(
            f"The tensors are those of {closest}, not {variant}: leave the variant out, or correct it."
        )
    return with_settings(VARIANTS[variant or closest], like)


def _num_classes(tensors: Tensors, naming: Naming, base: str, described: int | None) -> int:
    """Returns the number of classes; 0 for a checkpoint without a head.

    A classifier whose head is missing from the file keeps the described number, so that the missing head is an error.
    """
    (name,) = upstream_names("head.weight", naming.table, base)
    head = tensors.get(name)
    if head is None:
        # transformers writes `num_labels` for networks without a head too; the names of their tensors have no prefix.
        return 0 if naming.source_format == "transformers" and not base else described or 0
    return described or (head.shape[0] if len(head.shape) == 2 else 1)
