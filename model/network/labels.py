"""The names of classes, read from a file in any of the usual layouts."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path

from model.errors import LabelsError

NUM_IMAGENET_CLASSES = 1000


@functools.cache
def imagenet_labels() -> tuple[str, ...]:
    """Returns the names of the 1000 classes of ImageNet-1k, in the order of the published weights."""
    return read_labels(Path(__file__).with_name("imagenet_labels.txt"))


@functools.cache
def imagenet_wordnet_ids() -> tuple[str, ...]:
    """Returns the WordNet ids of ImageNet's classes, such as `n01440764`, which name the folders of the data set."""
    return read_labels(Path(__file__).with_name("imagenet_wordnet_ids.txt"))


def read_labels(path: str | Path) -> tuple[str, ...]:
    """Returns the labels in a file, in the order of the classes. See `parse_labels` for the layouts.

    Raises:
        LabelsError: The file cannot be read, or does not name every class exactly once.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LabelsError(f"The labels in {path} cannot be read as UTF-8 text: {error}.") from error
    return parse_labels(text, str(path))


def parse_labels(text: str, name: str) -> tuple[str, ...]:
    """Returns the labels in a text, in the order of the classes. Two classes may share a label.

    Args:
        text: One label per line, or a JSON list of labels, or a JSON object `{"0": label, ...}`, alone or under the key
            `id2label`.
        name: Name of the text in error messages.

    Raises:
        LabelsError: The text is empty, leaves a class out, or names a class twice.
    """
    if not text.lstrip().startswith(("[", "{")):
        return _from_list(text.rstrip().splitlines(), name, "line", first=1)
    try:
        content = json.loads(text, object_pairs_hook=_unrepeated)
    except ValueError as error:
        raise LabelsError(f"{name} begins like JSON, but cannot be read as JSON: {error}.") from error
    if isinstance(content, dict):
        content = content.get("id2label", content)
    if isinstance(content, dict):
        return labels_by_number(content, name)
    if not isinstance(content, list):
        raise LabelsError(f"{name} must hold a list of labels or an object from class numbers to labels.")
    return _from_list(content, name, "entry", first=0)


def labels_by_number(numbered: Mapping[str, object], name: str) -> tuple[str, ...]:
    """Returns the labels of a mapping from class numbers (as text) to labels, in the order of the numbers.

    Raises:
        LabelsError: The numbers are not 0, 1, 2 and so on, each once, or a label is not text.
    """
    labels: dict[int, object] = {}
    for key, label in numbered.items():
        if not (key.isascii() and key.isdigit()):
            raise LabelsError(f"{name} has the key {key!r}, which is no class number: keys must be 0, 1, 2 and so on.")
        if int(key) in labels:
            raise LabelsError(f"{name} names class {int(key)} twice.")
        labels[int(key)] = label
    gap = next((number for number in range(len(labels)) if number not in labels), None)
    if gap is not None:
        raise LabelsError(f"{name} has {len(labels)} labels, up to class {max(labels)}, but none for class {gap}.")
    return _from_list([labels[number] for number in range(len(labels))], name, "class", first=0)


def _from_list(labels: list[object] | list[str], name: str, word: str, *, first: int) -> tuple[str, ...]:
    if not labels:
        raise LabelsError(f"{name} is empty: it must name at least one class.")
    checked = []
    for number, label in enumerate(labels, start=first):
        if not isinstance(label, str) or not label.strip():
            raise LabelsError(f"{name}: {word} {number} must be a label, not {label!r}.")
        checked.append(label.strip())
    return tuple(checked)


def _unrepeated(pairs: list[tuple[str, object]]) -> dict[str, object]:
    keys = [key for key, _ in pairs]
    repeated = next((key for key in keys if keys.count(key) > 1), None) if len(set(keys)) < len(keys) else None
    if repeated is not None:
        raise ValueError(f"the key {repeated!r} appears twice")
    return dict(pairs)
