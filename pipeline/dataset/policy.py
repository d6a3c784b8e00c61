"""The policy of a data set: score thresholds, and classes of the network that are mapped or dropped."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import yaml

from pipeline.errors import ConfigError, InputError
from pipeline.store.errors import StoreError
from pipeline.store.store_path import StorePath

# The name in a file of classes that stands for all classes that the file does not list.
OTHERS = "*"
_NULL_TAG = "tag:yaml.org,2002:null"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Rules by which predictions become rows of a data set.

    Attributes:
        accept_score: Least softmax score, 0..1, of an accepted row; rows with lower scores need a review.
        class_scores: Least score for single labels of the data set, in place of `accept_score`.
        classes: Mapping from a label of the network to the label of the data set; None drops images with that label.
        drop_others: True drops labels that `classes` does not list; False keeps them unchanged.
        review_others: True has every row reviewed whose label has no score in `class_scores`.
    """

    accept_score: float = 0.5
    class_scores: Mapping[str, float] = field(default_factory=dict)
    classes: Mapping[str, str | None] = field(default_factory=dict)
    drop_others: bool = False
    review_others: bool = False

    def __post_init__(self) -> None:
        for name, score in {"--accept-score": self.accept_score, **self.class_scores}.items():
            if not 0 <= score <= 1:
                raise ConfigError(f"{name}: a score lies in 0..1, not {score:g}")

    def label_of(self, model_label: str) -> str | None:
        """Returns the data set's label for a label of the network; None if images with that label are dropped."""
        return self.classes.get(model_label, None if self.drop_others else model_label)

    def labels(self, model_labels: Sequence[str]) -> list[str]:
        """Returns the data set's labels in the order of the network's classes, each once."""
        found = [self.label_of(label) for label in model_labels]
        return list(dict.fromkeys(label for label in found if label is not None))

    def min_score(self, label: str) -> float:
        """Returns the least score with which a label of the data set is accepted; infinite if it never is."""
        return self.class_scores.get(label, math.inf if self.review_others else self.accept_score)

    def check(self, model_labels: Sequence[str]) -> None:
        """Checks that every name in the policy is a label of the network or of the data set.

        Raises:
            ConfigError: A name is not a label; most likely the name is misspelt.
        """
        for name in self.classes:
            if name not in model_labels:
                raise ConfigError(f"--classes: the network has no class {name!r}; it has {_few(model_labels)}")
        labels = self.labels(model_labels)
        for name in self.class_scores:
            if name not in labels:
                raise ConfigError(f"--class-scores: no image gets the label {name!r}; there are {_few(labels)}")

    def digest(self) -> str:
        """Returns the SHA-256 of the policy as hex digits."""
        values = asdict(self)
        if not self.review_others:
            # Data sets from before this field keep their versions.
            del values["review_others"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def read_class_scores(file: StorePath) -> dict[str, float]:
    """Returns the thresholds in a YAML file of lines `label: score`.

    Raises:
        ConfigError: The file holds something else.
        InputError: The file cannot be read.
    """
    scores = {}
    for name, text in _read_mapping("--class-scores", file).items():
        try:
            scores[name] = float(text or "")
        except ValueError:
            raise ConfigError(f"--class-scores {file.shown}: {name}: {text!r} is no score in 0..1") from None
    return scores


def read_classes(file: StorePath) -> tuple[dict[str, str | None], bool]:
    """Returns the classes in a YAML file of lines `network's label: data set's label`, where null drops the label.

    The name `*` stands for all other labels, which may be dropped (`"*": null`).

    Returns:
        The mapping without `*`, and True if all other labels are dropped.

    Raises:
        ConfigError: The file holds something else.
        InputError: The file cannot be read.
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
    """Returns a flat YAML mapping of texts, so that a class `no` or `007` is not converted; null becomes None."""
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
