"""The class of each `true_label`: labels are names, numbers, or ImageNet's folder names (WordNet ids)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from model.network.labels import NUM_IMAGENET_CLASSES, imagenet_wordnet_ids

KINDS = ("names", "numbers", "WordNet ids")
"""The kinds of labels; of two kinds that are equally good, the earlier one is preferred."""

# Labels are in doubt if another kind explains this share of them otherwise. A stray folder is a smaller share.
_DOUBTFUL_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The classes of a data set's true labels.

    Attributes:
        by: Kind of the labels, one of `KINDS`.
        classes: Class of each true label that is known; the first class stands for all classes that share its name.
        unknown: True labels that are none of the network's classes, sorted.
        same: For each class, the first class that has the same name.
        doubt: Sentence that says why the labels may be of another kind, or of another numbering; None without a doubt.
    """

    by: str
    classes: dict[str, int]
    unknown: tuple[str, ...]
    same: tuple[int, ...]
    doubt: str | None = None


def understand(
    true_labels: Iterable[str], labels: Sequence[str] | None, num_classes: int, kind: str | None = None
) -> Truth:
    """Returns the class of each true label; labels may be names, numbers or WordNet ids.

    All labels are read as one kind: the kind under which most labels are classes of the network. If two kinds are
    equally good, names are preferred, because a class may be named "7" and have another number.

    Args:
        true_labels: True labels as the rows hold them.
        labels: Names of the network's classes; None if the classes have no names.
        num_classes: Number of the network's classes.
        kind: Kind of the labels, one of `KINDS`, which leaves no doubt; None finds the kind.
    """
    texts = sorted(set(true_labels))
    first: dict[str, int] = {}
    for number, name in enumerate(labels or ()):
        first.setdefault(name, number)
    same = tuple(first[name] for name in labels) if labels else tuple(range(num_classes))
    wordnet = {name: n for n, name in enumerate(imagenet_wordnet_ids())} if num_classes == NUM_IMAGENET_CLASSES else {}
    readings: tuple[Callable[[str], int | None], ...] = (
        first.get,
        lambda text: int(text) if text.isdecimal() and int(text) < num_classes else None,
        wordnet.get,
    )
    found: dict[str, dict[str, int]] = {}
    for by, reading in zip(KINDS, readings, strict=True):
        read = {text: reading(text) for text in texts}
        found[by] = {text: same[number] for text, number in read.items() if number is not None}
    best = kind or max(KINDS, key=lambda by: len(found[by]))
    unknown = tuple(text for text in texts if text not in found[best])
    doubt = None if kind else _doubt(best, found, unknown, num_classes)
    return Truth(by=best, classes=found[best], unknown=unknown, same=same, doubt=doubt)


def _doubt(best: str, found: dict[str, dict[str, int]], unknown: Sequence[str], num_classes: int) -> str | None:
    """Returns a sentence that says why labels may be of another kind than `best`; None without a doubt."""
    classes = found[best]
    for by, others in found.items():
        differing = [text for text, number in others.items() if classes.get(text) != number]
        if differing and len(differing) >= _DOUBTFUL_SHARE * len(classes):
            return f"{len(classes)} true labels are {best}, but {_some(differing)} would be other classes as {by}"
    beyond = [text for text in unknown if text.isdecimal()]
    if best == "numbers" and classes and beyond:
        return f"the true labels {_some(beyond)} are numbers, but the network's classes end at {num_classes - 1}"
    return None


def _some(texts: Sequence[str]) -> str:
    return ", ".join(map(repr, texts[:5])) + (f" and {len(texts) - 5} more" if len(texts) > 5 else "")
