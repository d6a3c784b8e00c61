"""Inspects the files of a checkpoint: which network the files describe, and whether the tensors fit that network.

Files in the safetensors format are inspected without torch; files that torch pickled need torch.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import safetensors

from model.checkpoints.files import WEIGHTS_ENDINGS
from model.checkpoints.input_size import SizeAdvice, read_size_advice
from model.checkpoints.magnitude import FLOAT_TYPES, largest_magnitude
from model.checkpoints.matching import TensorInfo, Tensors, check_finite, check_match, find_variant, with_settings
from model.checkpoints.rename import Naming, SourceFormat, find_naming, is_classifiers, upstream_names
from model.checkpoints.timm_config import read_timm_config
from model.checkpoints.transformers_config import Description, json_object, read_config, read_preprocessing
from model.errors import CheckpointError
from model.network.config import IMAGENET_MEAN, IMAGENET_STD, RGB, VARIANTS, PVTv2Config, structure, variant_of
from model.network.labels import NUM_IMAGENET_CLASSES, imagenet_labels

_BLOCK_EPS = 1e-6  # epsilon of the norms in the blocks, the same in all three sources
# Averaged weights of torch.optim.swa_utils count their averages in a tensor of this name.
_COUNTER = "n_averaged"


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
        largest: Name and absolute value of the largest weight of the network. All weights are finite.
        sizes: Sizes of images that the checkpoint names.
    """

    config: PVTv2Config
    labels: tuple[str, ...] | None
    mean: RGB
    std: RGB
    digest: str
    naming: Naming
    base: str
    largest: tuple[str, float]
    sizes: SizeAdvice = field(default_factory=SizeAdvice)

    @property
    def source_format(self) -> SourceFormat:
        """The source whose names the checkpoint uses: `transformers`, `timm`, or `original` (authors' repository)."""
        return self.naming.source_format


def inspect_checkpoint(
    weights: bytes,
    config_json: str | None = None,
    preprocessor_json: str | None = None,
    variant: str | None = None,
    *,
    with_head: bool = True,
    with_labels: bool = True,
) -> CheckpointInfo:
    """Returns the description of a checkpoint from the contents of its files.

    Args:
        weights: Bytes of the weights file: safetensors, or a file of `torch.save`.
        config_json: Text of `config.json`, if there is such a file.
        preprocessor_json: Text of `preprocessor_config.json`, if there is such a file.
        variant: Key of `VARIANTS`, for weights without a `config.json`; by default found from the shapes.
        with_head: False leaves out the head, which must fit but need not be finite; `config.num_classes` is then 0.
        with_labels: False does not read the labels in `config.json`, so that these may be broken.

    Raises:
        CheckpointError: A file is broken, the tensors do not fit the network that the files describe, or a weight is
            not finite.
    """
    if variant is not None and variant not in VARIANTS:
        raise CheckpointError(f"There is no variant {variant!r}: choose one of {', '.join(VARIANTS)}.")
    tensors = _tensor_infos(weights)
    naming, base = _naming(tensors)
    described = _describe(config_json, with_labels=with_head and with_labels) if config_json is not None else None
    config = _config(tensors, naming, base, described, variant)
    check_match(config, tensors, naming.table, base)
    if not with_head:
        config = replace(config, num_classes=0)
    largest = check_finite(config, tensors, naming.table, base)
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if preprocessor_json is not None:
        mean, std = read_preprocessing(preprocessor_json)
    elif described is not None:
        mean, std = described.mean or mean, described.std or std
    labels = described.labels if described and config.num_classes else None
    if with_labels and labels is None and config.num_classes == NUM_IMAGENET_CLASSES:
        labels = imagenet_labels()
    return CheckpointInfo(
        config=config,
        labels=labels,
        mean=mean,
        std=std,
        digest=hashlib.sha256(weights).hexdigest(),
        naming=naming,
        base=base,
        largest=largest,
        sizes=read_size_advice(
            None if config_json is None else json_object(config_json, "config.json"),
            None if preprocessor_json is None else json_object(preprocessor_json, "preprocessor_config.json"),
        ),
    )


def is_pickled(weights: bytes) -> bool:
    """Returns whether the bytes are a file of `torch.save`: a zip archive, or the bare pickle of early versions."""
    return weights.startswith(b"PK\x03\x04") or (weights[:1] == b"\x80" and weights[8:9] != b"{")


def _tensor_infos(weights: bytes) -> Tensors:
    if weights.startswith(b"version https://git-lfs"):
        raise CheckpointError("The weights are a Git LFS pointer: fetch the file itself with `git lfs pull`.")
    if is_pickled(weights):
        from model.checkpoints.pickled import describe, read_pickled  # loads torch, which safetensors need not

        return {name: describe(value) for name, value in read_pickled(weights).items() if not _is_counter(name)}
    try:
        found = safetensors.deserialize(weights)
    except safetensors.SafetensorError as error:
        raise CheckpointError(
            f"The weights are no whole safetensors file ({error}): they are of another format, or were cut short. "
            f"Weights are read from files of safetensors and of torch.save ({', '.join(WEIGHTS_ENDINGS)})."
        ) from error
    return {name: _info(entry) for name, entry in found if not _is_counter(name)}


def _info(entry: Mapping[str, Any]) -> TensorInfo:
    """Returns the description of a tensor of a safetensors file."""
    is_float = entry["dtype"] in FLOAT_TYPES
    largest = largest_magnitude(entry["dtype"], entry["data"]) if is_float else 0.0
    return TensorInfo(tuple(entry["shape"]), is_float, largest)


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == _COUNTER


def _naming(tensors: Tensors) -> tuple[Naming, str]:
    found = find_naming(tensors)
    if found is None:
        first = ", ".join(sorted(tensors)[:3]) or "none"
        raise CheckpointError(
            f"The tensors are not those of a PVTv2 of transformers, timm or the original (the first are: {first})."
        )
    return found


def _describe(config_json: str, *, with_labels: bool) -> Description:
    raw = json_object(config_json, "config.json")
    read = read_timm_config if "architecture" in raw and "model_type" not in raw else read_config
    return read(raw, with_labels=with_labels)


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
        # transformers writes `num_labels` for networks without a head too.
        return described or 0 if is_classifiers(naming, base) else 0
    return described or (head.shape[0] if len(head.shape) == 2 else 1)
