"""Which predictions a data set accepts, and under which label: thresholds, and classes that are mapped or dropped."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import yaml

from pipeline.errors import ConfigError, InputError
from pipeline.store.errors import StoreError
from pipeline.store.store_path import StorePath

# In a file of classes: what becomes of those that it does not name.
OTHERS = "*"
_NULL_TAG = "tag:yaml.org,2002:null"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How predictions become rows of a data set.

    Attributes:
        accept_score: softmax, 0..1, from which on a row is accepted; below it somebody has to look.
        class_scores: the same for single labels of the data set.
        classes: the network's label -> the data set's; None drops the image.
        drop_others: labels that `classes` does not name are dropped; otherwise they stay as they are.
    """

    accept_score: float = 0.5
    class_scores: Mapping[str, float] = field(default_factory=dict)
    classes: Mapping[str, str | None] = field(default_factory=dict)
    drop_others: bool = False

    def __post_init__(self) -> None:
        for name, score in {"--accept-score": self.accept_score, **self.class_scores}.items():
            if not 0 <= score <= 1:
                raise ConfigError(f"{name}: a score lies in 0..1, not {score:g}")

    def label_of(self, model_label: str) -> str | None:
        """The data set's label for one of the network's; None if its images are dropped."""
        return self.classes.get(model_label, None if self.drop_others else model_label)

    def labels(self, model_labels: Sequence[str]) -> list[str]:
        """The data set's labels, in the order of the network's classes, each once."""
        found = [self.label_of(label) for label in model_labels]
        return list(dict.fromkeys(label for label in found if label is not None))

    def min_score(self, label: str) -> float:
        """The score from which on this label of the data set is accepted."""
        return self.class_scores.get(label, self.accept_score)

    def check(self, model_labels: Sequence[str]) -> None:
        """Returns if every name that the policy holds is a label.

        Raises:
            ConfigError: one is not; most likely it is misspelt.
        """
        for name in self.classes:
            if name not in model_labels:
                raise ConfigError(f"--classes: the network has no class {name!r}; it has {_few(model_labels)}")
        labels = self.labels(model_labels)
        for name in self.class_scores:
            if name not in labels:
                raise ConfigError(f"--class-scores: no image gets the label {name!r}; there are {_few(labels)}")

    def digest(self) -> str:
        """SHA-256 of all of it, as hex."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def read_class_scores(file: StorePath) -> dict[str, float]:
    """The thresholds in a YAML file: `label: score`, one a line.

    Raises:
        ConfigError: it holds something else.
        InputError: it cannot be read.
    """
    scores = {}
    for name, text in _read_mapping("--class-scores", file).items():
        try:
            scores[name] = float(text or "")
        except ValueError:
            raise ConfigError(f"--class-scores {file.shown}: {name}: {text!r} is no score in 0..1") from None
    return scores


def read_classes(file: StorePath) -> tuple[dict[str, str | None], bool]:
    """The classes in a YAML file: `the network's label: the data set's label`, null to drop it.

    The name `*` stands for all others, which may be dropped (`"*": null`).

    Returns:
        The mapping without `*`, and whether others are dropped.

    Raises:
        ConfigError: it holds something else.
        InputError: it cannot be read.
    """
    classes = _read_mapping("--classes", file)
    others = classes.pop(OTHERS, OTHERS)
    if others not in (None, OTHERS):
        raise ConfigError(f"--classes {file.shown}: {OTHERS!r} can only be null; others keep their labels without it")
    for name, label in classes.items():
        if label == "":
            raise ConfigError(f"--classes {file.shown}: {name}: a label is not empty; write null to drop the class")
    return classes, others is None


def _read_mapping(flag: str, file: StorePath) -> dict[str, str | None]:
    """A flat YAML mapping as text, so that a class `no` or `007` stays what it is; null is None."""
    try:
        root = yaml.compose(file.read().decode(), Loader=yaml.SafeLoader)
    except StoreError as error:
        raise InputError(f"{flag} {file.shown} cannot be read: {error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{flag} {file.shown} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{flag} {file.shown} must hold lines such as `name: value`")
    found: dict[str, str | None] = {}
    for key, value in root.value:
        if not isinstance(key, yaml.ScalarNode) or not isinstance(value, yaml.ScalarNode):
            line = key.start_mark.line + 1
            raise ConfigError(f"{flag} {file.shown}, line {line}: must be `name: value`, with nothing below it")
        if key.value in found:
            raise ConfigError(f"{flag} {file.shown} names {key.value!r} twice")
        found[key.value] = None if value.tag == _NULL_TAG else value.value
    return found


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more
