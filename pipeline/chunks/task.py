"""The task of a job, labels or features: it decides the job's columns, the size of its rows, and its identity."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import pyarrow as pa

from model.network.config import NUM_STAGES, PVTv2Config, stage_sides
from pipeline.chunks.columns import CLASSIFY_COLUMNS, at_sizes_field, embedding_field, stage_field
from pipeline.chunks.size_policy import NetSize, SizePolicy
from pipeline.errors import ConfigError
from pipeline.store.uris import canonical_uri

FeatureDtype = Literal["float16", "float32"]

# Predicted bytes of a row's base columns without their texts.
_ROW_BYTES = 256
_ITEM_BYTES = {"float16": 2, "float32": 4}


@dataclass(frozen=True, kw_only=True)
class ScoreScaling:
    """A temperature that makes softmax scores say how often labels are right, and what it was fitted for.

    Attributes:
        temperature: Number by which logits are divided before the softmax.
        weights_sha256: SHA-256 of the weights.
        size: Name of the size, such as `square:224`.
        policy: The size policy.
    """

    temperature: float
    weights_sha256: str
    size: str
    policy: SizePolicy


@dataclass(frozen=True, kw_only=True)
class Classify:
    """The task that gives each image its best classes with their softmax scores.

    Attributes:
        labels: URI of a file with the classes' names; None takes the names of the checkpoint.
        top_k: Number of classes in `topk_ids` and `topk_scores`.
        scaling: Temperature of the scores; None for plain softmax scores.
    """

    labels: str | None = None
    top_k: int = 5
    scaling: ScoreScaling | None = None

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ConfigError(f"--top-k must be at least 1, not {self.top_k}")
        if self.labels is not None:
            object.__setattr__(self, "labels", canonical_uri(self.labels))

    def columns(self, network: PVTv2Config) -> pa.Schema:
        """Returns the columns that this task adds to the base columns."""
        return CLASSIFY_COLUMNS

    def network(self, config: PVTv2Config) -> PVTv2Config:
        """Returns the configuration of the network that is run: the checkpoint's whole network."""
        return config

    def size_policies(self, sizes: SizePolicy) -> tuple[SizePolicy, ...]:
        """Returns the policies at whose sizes the network sees each image; `sizes` is the policy of the job."""
        return (sizes,)

    def row_bytes(self, network: PVTv2Config, size: NetSize | None) -> int:
        """Returns the predicted bytes of one output row without its texts."""
        return _ROW_BYTES + 12 * self.top_k

    def identity(self, labels: Sequence[str] | None) -> dict[str, Any]:
        """Returns the task's part of an output's identity.

        Args:
            labels: Names of the classes as the rows hold them.
        """
        digest = None if labels is None else hashlib.sha256("\n".join(labels).encode()).hexdigest()
        return {
            "job": "classify",
            "labels": None if labels is None else list(labels),
            "labels_sha256": digest,
            "top_k": self.top_k,
            **({} if self.scaling is None else {"calibration": {"temperature": self.scaling.temperature}}),
        }


@dataclass(frozen=True, kw_only=True)
class ClassifyAtSizes(Classify):
    """The task that classifies each image at the sizes of several policies, and keeps all logits.

    The image is read and decoded once. The records of a slice are those that the task `Classify` puts into the slice,
    so that the output of each policy can be made of the rows, file by file.

    Attributes:
        policies: Policies of the sizes, in the order of the answers in `at_sizes`.
    """

    policies: tuple[SizePolicy, ...]

    def columns(self, network: PVTv2Config) -> pa.Schema:
        """Returns the column that this task adds to the base columns: the answers of all policies."""
        return pa.schema([at_sizes_field(network.num_classes)])

    def size_policies(self, sizes: SizePolicy) -> tuple[SizePolicy, ...]:
        """Returns the policies of the task."""
        return self.policies

    def identity(self, labels: Sequence[str] | None) -> dict[str, Any]:
        """Returns the task's part of an output's identity."""
        policies = [asdict(policy) for policy in self.policies]
        return {**super().identity(labels), "job": "classify_at_sizes", "policies": policies}


@dataclass(frozen=True, kw_only=True)
class ExtractFeatures:
    """The task that gives each image the mean of its last map, and the maps of some stages.

    Attributes:
        dtype: Type of all features.
        l2_normalize: True scales the embedding to length 1; maps are not scaled.
        stages: Numbers of the stages whose maps are kept, from 1 to 4, in rising order.
    """

    dtype: FeatureDtype = "float16"
    l2_normalize: bool = False
    stages: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.dtype not in get_args(FeatureDtype):
            raise ConfigError(f"--feature-dtype must be float16 or float32, not {self.dtype!r}")
        if not set(self.stages) <= set(range(1, NUM_STAGES + 1)):
            raise ConfigError(f"--stages must be some of 1,2,3,4, not {','.join(map(str, self.stages))}")
        object.__setattr__(self, "stages", tuple(sorted(set(self.stages))))

    def columns(self, network: PVTv2Config) -> pa.Schema:
        """Returns the columns that this task adds: `embedding`, then a column for each stage whose map is kept."""
        dtype = pa.from_numpy_dtype(self.dtype)
        stages = [stage_field(stage, dtype) for stage in self.stages]
        return pa.schema([embedding_field(network.embed_dims[-1], dtype), *stages])

    def network(self, config: PVTv2Config) -> PVTv2Config:
        """Returns the configuration of the network that is run: the checkpoint's network without its head."""
        return replace(config, num_classes=0)

    def size_policies(self, sizes: SizePolicy) -> tuple[SizePolicy, ...]:
        """Returns the policies at whose sizes the network sees each image; `sizes` is the policy of the job."""
        return (sizes,)

    def row_bytes(self, network: PVTv2Config, size: NetSize | None) -> int:
        """Returns the predicted bytes of one output row without its texts.

        Args:
            size: Size that the network sees; None for an image whose header gives no size.
        """
        values = network.embed_dims[-1]
        if size is not None:
            sides = stage_sides(size.height, size.width)
            values += sum(
                network.embed_dims[stage - 1] * sides[stage - 1][0] * sides[stage - 1][1] for stage in self.stages
            )
        return _ROW_BYTES + _ITEM_BYTES[self.dtype] * values

    def identity(self, labels: Sequence[str] | None) -> dict[str, Any]:
        """Returns the task's part of an output's identity."""
        return {
            "job": "extract_features",
            "stages": list(self.stages),
            "feature_dtype": self.dtype,
            "l2_normalize": self.l2_normalize,
        }


Task = Classify | ExtractFeatures
