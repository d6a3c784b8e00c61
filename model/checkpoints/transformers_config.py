"""Reads and writes the two JSON files beside transformers' weights: `config.json` and `preprocessor_config.json`."""

import json
from dataclasses import dataclass
from typing import Any, TypeGuard

from model.errors import CheckpointError, LabelsError
from model.network.config import IMAGENET_MEAN, IMAGENET_STD, KERNELS, NUM_STAGES, RGB, STRIDES, PVTv2Config
from model.network.labels import labels_by_number

# The least normal number and the largest number of float32, in which the network computes norms and normalises pixels.
LEAST, MOST = 2.0**-126, 2.0**128 - 2.0**104

# Field of `PVTv2Config` -> key in the file, and the value that transformers takes for a key that is missing.
_TUPLES = {
    "embed_dims": ("hidden_sizes", (32, 64, 160, 256)),
    "depths": ("depths", (2, 2, 2, 2)),
    "num_heads": ("num_attention_heads", (1, 2, 5, 8)),
    "mlp_ratios": ("mlp_ratios", (8, 8, 4, 4)),
    "sr_ratios": ("sr_ratios", (8, 4, 2, 1)),
}
# Keys of settings that are fixed in `PVTv2`, and the only value of each.
_FIXED = {
    "num_channels": 3,
    "num_encoder_blocks": NUM_STAGES,
    "patch_sizes": list(KERNELS),
    "strides": list(STRIDES),
    "hidden_act": "gelu",
}


@dataclass(frozen=True, kw_only=True)
class Description:
    """The content of a `config.json`.

    Attributes:
        config: Configuration of the network without the number of classes: `config.num_classes` is always 0.
        num_classes: Number of classes; None if the file has no such number.
        labels: One label per class; None if the file has no labels, or only the default labels `LABEL_0`, `LABEL_1`
            and so on.
        mean: RGB mean of pixels in [0, 1]; None if the file has none.
        std: RGB standard deviation of pixels in [0, 1]; None if the file has none.
    """

    config: PVTv2Config
    num_classes: int | None
    labels: tuple[str, ...] | None
    mean: RGB | None = None
    std: RGB | None = None


def read_config(raw: dict[str, Any], *, with_labels: bool = True) -> Description:
    """Returns the description in the JSON object of a `config.json`.

    Args:
        raw: JSON object.
        with_labels: False does not read the labels, so that these may be broken.

    Raises:
        CheckpointError: The object describes another network, or a network that this package cannot build.
    """
    if raw.get("model_type") != "pvt_v2":
        raise CheckpointError(
            f"config.json describes a model of type {raw.get('model_type')!r}, not 'pvt_v2': give a PVTv2 checkpoint."
        )
    for key, value in _FIXED.items():
        if raw.get(key, value) != value:
            raise CheckpointError(f"config.json has {key} {raw[key]!r}; only {value!r} can be loaded.")
    eps = raw.get("layer_norm_eps", 1e-6)
    if not is_number(eps):
        raise CheckpointError(f"config.json has layer_norm_eps {eps!r}, which is no number.")
    if not LEAST <= eps <= MOST:
        raise CheckpointError(f"config.json has layer_norm_eps {eps!r}, which must be above 0 and finite as float32.")
    try:
        config = PVTv2Config(
            **{ours: _whole_numbers(raw.get(theirs, default)) for ours, (theirs, default) in _TUPLES.items()},
            linear=bool(raw.get("linear_attention", False)),
            num_classes=0,
            qkv_bias=bool(raw.get("qkv_bias", True)),
            block_eps=eps,
            embed_eps=eps,
        )
        labels = _labels(raw.get("id2label")) if with_labels else None
    except LabelsError as error:
        raise CheckpointError(f"{error} Correct it, or give a job --labels.") from error
    except ValueError as error:
        raise CheckpointError(f"config.json describes no PVTv2 that can be built: {error}") from error
    # A file that names the classes has its number of classes in the names, not in `num_labels`.
    num_labels = raw.get("num_labels") if raw.get("id2label") is None else None
    num_classes = len(labels) if labels is not None else num_labels if isinstance(num_labels, int) else None
    are_numbered = labels is not None and labels == _numbered_labels(len(labels))
    return Description(config=config, num_classes=num_classes, labels=None if are_numbered else labels or None)


def write_config(config: PVTv2Config, labels: tuple[str, ...] | None, shorter_px: tuple[int, int] | None = None) -> str:
    """Returns the text of a `config.json` from which transformers builds the same network.

    Args:
        shorter_px: Least and largest shorter side in pixels of the images in training; None does not say them. Two
            equal sides are written as `image_size`, others as `trained_shorter_px`.

    Raises:
        ValueError: transformers cannot express the network, or there is not one label per class.
    """
    if config.block_eps != config.embed_eps:
        raise ValueError("transformers knows one epsilon for all norms, so block_eps and embed_eps must be equal.")
    if labels is not None and len(labels) != config.num_classes:
        raise ValueError(f"There are {len(labels)} labels for {config.num_classes} classes.")
    id2label = dict(enumerate(labels or _numbered_labels(config.num_classes)))
    raw = {
        "architectures": ["PvtV2ForImageClassification"],
        "model_type": "pvt_v2",
        **_trained(shorter_px),
        **{theirs: getattr(config, ours) for ours, (theirs, _) in _TUPLES.items()},
        **_FIXED,
        "linear_attention": config.linear,
        "qkv_bias": config.qkv_bias,
        "layer_norm_eps": config.block_eps,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "drop_path_rate": 0.0,
        "id2label": id2label,
        "label2id": {label: number for number, label in id2label.items()},
    }
    return json.dumps(raw, indent=2) + "\n"


def _trained(shorter_px: tuple[int, int] | None) -> dict[str, Any]:
    if shorter_px is None:
        return {}
    least, largest = shorter_px
    return {"image_size": least} if least == largest else {"trained_shorter_px": [least, largest]}


def read_preprocessing(text: str) -> tuple[RGB, RGB]:
    """Returns the mean and the standard deviation, of pixels in [0, 1], in the text of a `preprocessor_config.json`.

    Raises:
        CheckpointError: The text is not JSON, pixels are to be scaled in another way than to [0, 1], or a mean or a
            standard deviation is not finite, or a standard deviation is not above 0.
    """
    raw = json_object(text, "preprocessor_config.json")
    factor = raw.get("rescale_factor", 1 / 255) if raw.get("do_rescale", True) else 1
    if not is_number(factor) or not abs(factor * 255 - 1) <= 1e-6:  # NaN is neither
        raise CheckpointError(f"preprocessor_config.json scales pixels by {factor!r}; only 1/255 can be loaded.")
    if not raw.get("do_normalize", True):
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    mean = rgb(raw.get("image_mean") or IMAGENET_MEAN, "image_mean")
    return mean, rgb(raw.get("image_std") or IMAGENET_STD, "image_std", above_0=True)


def write_preprocessing(mean: RGB, std: RGB) -> str:
    """Returns the text of a `preprocessor_config.json` that keeps images at their size and normalises pixels."""
    raw = {"do_resize": False, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    return json.dumps({**raw, "image_mean": mean, "image_std": std}, indent=2) + "\n"


def json_object(text: str, name: str) -> dict[str, Any]:
    """Returns the JSON object in a text.

    Args:
        text: Text of a JSON file.
        name: Name of the text in error messages.

    Raises:
        CheckpointError: The text holds no JSON object.
    """
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{name} is not JSON: {error}.") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{name} must hold a JSON object, not {type(raw).__name__}.")
    return raw


def _whole_numbers(raw: object) -> tuple[int, ...]:
    """Returns the values of a list as a tuple; whole floats such as 8.0 become ints.

    A value that is no list becomes (0,). `PVTv2Config` refuses (0,) and all values that are not whole numbers.
    """
    if not isinstance(raw, list | tuple):
        return (0,)
    return tuple(int(n) if isinstance(n, float) and n.is_integer() else n for n in raw)


def _labels(id2label: object) -> tuple[str, ...] | None:
    if id2label is None:
        return None
    if not isinstance(id2label, dict):
        raise LabelsError("config.json: id2label must be an object from class numbers to labels.")
    return labels_by_number(id2label, "config.json: id2label") if id2label else ()


def _numbered_labels(num_classes: int) -> tuple[str, ...]:
    """Returns the names that transformers gives to classes without names."""
    return tuple(f"LABEL_{number}" for number in range(num_classes))


def rgb(raw: object, name: str, *, above_0: bool = False) -> RGB:
    """Returns a list of three numbers as a tuple.

    Args:
        raw: Value in a JSON file.
        name: Name of the value in error messages.
        above_0: Whether each number must be above 0.

    Raises:
        CheckpointError: The value is not three numbers, or a number is not finite as float32 or not above 0.
    """
    if not isinstance(raw, list | tuple) or len(raw) != 3 or not all(is_number(n) for n in raw):
        raise CheckpointError(f"The configuration has {name} {raw!r}; it must be three numbers.")
    if not all((LEAST if above_0 else -MOST) <= n <= MOST for n in raw):
        what = "above 0 and finite" if above_0 else "finite"
        raise CheckpointError(f"The configuration has {name} {list(raw)}; each must be {what} as float32.")
    return float(raw[0]), float(raw[1]), float(raw[2])


def is_number(raw: object) -> TypeGuard[int | float]:
    """Returns whether a value of a JSON file is a number, which may be NaN or infinite."""
    return isinstance(raw, int | float) and not isinstance(raw, bool)
