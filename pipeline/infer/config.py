"""Settings of the infer step."""

from dataclasses import dataclass

from pipeline.chunks.task import Task


@dataclass(frozen=True, kw_only=True)
class InferConfig:
    """Settings of the infer step; the weights travel apart from them.

    Attributes:
        config_json, preprocessor_json: Text of the checkpoint's own descriptions; None if the checkpoint has none.
        variant: Name of the PVTv2 variant, for a checkpoint without a description; else None.
        labels: Name of each class; None leaves the column `label` null.
        task: Classification or features.
        device: `cpu` or `cuda`.
        precision: `fp32`, `bf16` or `fp16`.
    """

    config_json: str | None
    preprocessor_json: str | None
    variant: str | None
    labels: tuple[str, ...] | None
    task: Task
    device: str
    precision: str
