"""Which class a `true_label` means: labels come as names, as numbers, or as ImageNet's folder names."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from model.network.labels import NUM_IMAGENET_CLASSES, imagenet_wordnet_ids


@dataclass(frozen=True, kw_only=True)
class Truth:
    """How the true labels of a data set are understood.

    Attributes:
        by: `names`, `numbers` or `WordNet ids`.
        classes: class of each true label that is understood. Of classes that share a name, the first stands for all.
        unknown: true labels that are none of the network's classes, in order.
        same: for each class the one that stands for it.
    """

    by: str
    classes: dict[str, int]
    unknown: tuple[str, ...]
    same: tuple[int, ...]


def understand(true_labels: Iterable[str], labels: Sequence[str] | None, num_classes: int) -> Truth:
    """The reading under which most of the true labels are classes of the network.

    Names come first: a class may be called "7" and be another than number 7.

    Args:
        labels: names of the network's classes; None where they have none.
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
