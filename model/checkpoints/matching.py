"""Compares the tensors of a checkpoint with the parameters of a network: names, shapes and types."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from model.checkpoints.rename import RenameTable, upstream_names
from model.errors import CheckpointError
from model.network.config import VARIANTS, PVTv2Config, variant_of
from model.network.shapes import Shape, parameter_shapes

NUM_NAMED = 3  # tensors of each kind that an error names
INFINITE_FLOAT32 = 2.0**128 - 2.0**103
"""The least number that becomes infinite when it is rounded to float32."""


class TensorInfo(NamedTuple):
    """The description of one tensor of a checkpoint.

    Attributes:
        shape: Shape of the tensor.
        is_float: Whether the tensor's numbers are floating-point.
        largest: Largest absolute value; NaN or infinity if a number is not finite, and 0 for another type of numbers.
    """

    shape: Shape
    is_float: bool
    largest: float


Tensors = Mapping[str, TensorInfo]


@dataclass(frozen=True, kw_only=True)
class Differences:
    """The tensors in which a checkpoint differs from what a network needs, by the checkpoint's names."""

    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]
    not_float: list[str]

    def count(self) -> int:
        """Returns the number of differences."""
        return len(self.missing) + len(self.unexpected) + len(self.misshapen) + len(self.not_float)

    def describe(self) -> str:
        """Returns one line that counts each kind of difference and names the first few tensors of each kind."""
        kinds = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "of another shape": self.misshapen,
            "of no floating-point type": self.not_float,
        }
        return "; ".join(
            f"{len(names)} {kind} ({', '.join(names[:NUM_NAMED])}{', ...' if len(names) > NUM_NAMED else ''})"
            for kind, names in kinds.items()
            if names
        )


def compare(config: PVTv2Config, tensors: Tensors, table: RenameTable, base: str) -> Differences:
    """Returns the differences between a checkpoint's tensors and the tensors that the network of `config` needs."""
    shapes: dict[str, Shape] = {}
    for name, (length, *sides) in parameter_shapes(config).items():
        names = upstream_names(name, table, base)
        shapes |= dict.fromkeys(names, (length // len(names), *sides))
    shared = [name for name in shapes if name in tensors]
    return Differences(
        missing=[name for name in shapes if name not in tensors],
        unexpected=sorted(tensors.keys() - shapes.keys()),
        misshapen=[
            f"{name} is {_sides(tensors[name].shape)}, not {_sides(shapes[name])}"
            for name in shared
            if tensors[name].shape != shapes[name]
        ],
        not_float=[name for name in shared if not tensors[name].is_float],
    )


def check_match(config: PVTv2Config, tensors: Tensors, table: RenameTable, base: str) -> None:
    """Checks that a checkpoint's tensors are exactly the tensors that the network of `config` needs.

    Raises:
        CheckpointError: A tensor is missing, is unexpected, has another shape, or is not floating-point.
    """
    differences = compare(config, tensors, table, base)
    if differences.count():
        network = variant_of(config) or "the network in config.json"
        raise CheckpointError(
            f"The tensors are not those of {network}: {differences.describe()}. "
            "Give the weights and the configuration of one and the same model."
        )


def check_finite(config: PVTv2Config, tensors: Tensors, table: RenameTable, base: str) -> tuple[str, float]:
    """Checks that all weights of the network of `config` are finite; returns the name and value of the largest weight.

    Tensors of the checkpoint that the network does not have are not checked.

    Raises:
        CheckpointError: A weight is NaN, is infinite, or is infinite as float32.
    """
    names = [name for parameter in parameter_shapes(config) for name in upstream_names(parameter, table, base)]
    bad = [name for name in names if not tensors[name].largest < INFINITE_FLOAT32]
    if bad:
        shown = [f"{name} holds {_shown(tensors[name].largest)}" for name in bad[:NUM_NAMED]]
        more = ["..."] if len(bad) > NUM_NAMED else []
        raise CheckpointError(
            f"{len(bad)} of the {len(names)} tensors are not finite ({', '.join(shown + more)}): "
            "the training diverged, or the file is damaged. Give an earlier checkpoint."
        )
    largest = max(names, key=lambda name: tensors[name].largest)
    return largest, tensors[largest].largest


def find_variant(like: PVTv2Config, tensors: Tensors, table: RenameTable, base: str) -> tuple[str, int]:
    """Returns the name of the published variant that the tensors fit best, and the number of differences from it.

    Args:
        like: Configuration whose classes, biases and epsilons every variant gets before the comparison.
        tensors: Tensors of the checkpoint.
        table: Table of the checkpoint's source.
        base: Text for `{base}` in the table.
    """
    counts = {}
    for name, variant in VARIANTS.items():
        candidate = with_settings(variant, like)
        counts[name] = compare(candidate, tensors, table, base).count()
    closest = min(counts, key=lambda name: counts[name])
    return closest, counts[closest]


def with_settings(variant: PVTv2Config, like: PVTv2Config) -> PVTv2Config:
    """Returns the variant with the classes, biases and epsilons of another configuration."""
    return replace(
        variant,
        num_classes=like.num_classes,
        qkv_bias=like.qkv_bias,
        block_eps=like.block_eps,
        embed_eps=like.embed_eps,
    )


def _shown(largest: float) -> str:
    if math.isfinite(largest):
        return f"{largest:g}, which float32 cannot hold"
    return "NaN" if math.isnan(largest) else "infinity"


def _sides(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a single number"
