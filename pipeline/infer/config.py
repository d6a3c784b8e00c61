"""Settings of the infer step."""

from dataclasses import dataclass

from pipeline.chunks.task import Task


@dataclass(frozen=True, kw_only=True)
class InferConfig:
    """What the infer step needs besides the weights.

    Attributes:
        config_json, preprocessor_json: the checkpoint's own description, as text; None where it has none.
        variant: which PVTv2, where no description says it.
        labels: a name for each class; None leaves the column `label` null.
        task: what is asked of the network.
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
