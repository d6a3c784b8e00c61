"""Reads the `config.json` that timm writes beside its weights."""

from dataclasses import replace
from typing import Any

from model.checkpoints.transformers_config import Description, rgb
from model.errors import CheckpointError
from model.network.config import VARIANTS

_ARCHITECTURES = {f"pvt_v2_{name.removesuffix('near').replace('-', '_')}": name for name in VARIANTS}


def read_timm_config(raw: dict[str, Any], *, with_labels: bool = True) -> Description:
    """Returns the description in the JSON object of a `config.json`.

    Args:
        raw: JSON object.
        with_labels: False does not read the labels, so that these may be broken.

    Raises:
        CheckpointError: The object describes no PVTv2, does not have one label for each class, or has a mean or
            standard deviation that is not finite, or a standard deviation that is not above 0.
    """
    architecture = raw["architecture"]
    variant = _ARCHITECTURES.get(architecture)
    if variant is None:
        raise CheckpointError(
            f"config.json describes timm's architecture {architecture!r}; PVTv2 are {', '.join(_ARCHITECTURES)}."
        )
    details = raw.get("pretrained_cfg")
    details = details if isinstance(details, dict) else {}
    num_classes = raw.get("num_classes", details.get("num_classes"))
    labels = raw.get("label_names") or details.get("label_names") if with_labels else None
    if labels is not None and (not isinstance(labels, list) or len(labels) != num_classes):
        raise CheckpointError(
            f"config.json names other than its {num_classes} classes: correct its label_names, or give a job --labels."
        )
    return Description(
        config=replace(VARIANTS[variant], num_classes=0),
        num_classes=num_classes if isinstance(num_classes, int) else None,
        labels=None if labels is None else tuple(map(str, labels)),
        mean=rgb(details["mean"], "mean") if "mean" in details else None,
        std=rgb(details["std"], "std", above_0=True) if "std" in details else None,
    )
