"""The class of each `true_label`: labels are names, numbers, or ImageNet's folder names (WordNet ids)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from model.network.labels import NUM_IMAGENET_CLASSES, imagenet_wordnet_ids


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The classes of a data set's true labels.

    Attributes:
        by: Kind of the labels: `names`, `numbers` or `WordNet ids`.
        classes: Class of each true label that is known; the first class stands for all classes that share its name.
        unknown: True labels that are none of the network's classes, sorted.
        same: For each class, the first class that has the same name.
    """

    by: str
    classes: dict[str, int]
    unknown: tuple[str, ...]
    same: tuple[int, ...]


def understand(true_labels: Iterable[str], labels: Sequence[str] | None, num_classes: int) -> Truth:
    """Returns the class of each true label; labels may be names, numbers or WordNet ids.

    All labels are read as one kind: the kind under which most labels are classes of the network. If two kinds are
    equally good, names are preferred, because a class may be named "7" and have another number.

    Args:
        true_labels: True labels as the rows hold them.
        labels: Names of the network's classes; None if the classes have no names.
        num_classes: Number of the network's classes.
    """
    texts = sorted(set(true_labels))
    first: dict[str, int] = {}
    for number, name in enumerate(labels or ()):
        first.setdefault(name, number)
    same = tuple(first[name] for name in labels) if labels else tuple(range(num_classes))
    wordnet = {name: n for n, name in enumerate(imagenet_wordnet_ids())} if num_classes == NUM_IMAGENET_CLASSES else {}
    readings: tuple[tuple[str, Callable[[str], int | None]], ...] = (
        ("names", first.get),
        ("numbers", lambda text: int(text) if text.isdecimal() and int(text) < num_classes else None),
        ("WordNet ids", wordnet.get),
    )
    best = Truth(by="names", classes={}, unknown=tuple(texts), same=same)
    for by, reading in readings:
        read = {text: reading(text) for text in texts}
        classes = {text: same[number] for text, number in read.items() if number is not None}
        if len(classes) > len(best.classes):
            unknown = tuple(text for text in texts if text not in classes)
            best = Truth(by=by, classes=classes, unknown=unknown, same=same)
    return best
