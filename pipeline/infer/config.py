"""Settings of the infer step."""

from dataclasses import dataclass

from pipeline.chunks.task import Task


@dataclass(frozen=True, kw_only=True)
class InferConfig:
    """Settings of the infer step; the weights are passed separately.

    Attributes:
        config_json, preprocessor_json: Text of the checkpoint's `config.json` and `preprocessor_config.json`; None if
            there is no such file.
        variant: Name of the PVTv2 variant for a checkpoint without a `config.json`; None for other checkpoints.
        labels: Name of each class; None makes the column `label` null.
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
