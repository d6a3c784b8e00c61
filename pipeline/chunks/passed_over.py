"""Names that a job passes over, counted by their endings in bounded memory."""

from collections import Counter
from collections.abc import Iterable, Mapping

NO_ENDING = "(none)"
"""Stands for names without an ending."""

OTHER_ENDINGS = "(other)"
"""Stands for endings that are too long, or too rare to be named."""

LATE_SIDECARS = "(late sidecars)"
"""Stands for labels and captions that lie too far from their image in a tar to be joined to it."""

_MOST_ENDINGS = 32
_LONGEST_ENDING = 16


def ending_of(name: str) -> str:
    """Returns the ending of the last part of a name with its dot, in lower case, or one of the words above."""
    last = name.rstrip("/").rpartition("/")[2]
    stem, _, ending = last.rpartition(".")
    if not stem or not ending:
        return NO_ENDING
    return f".{ending.lower()}" if len(ending) < _LONGEST_ENDING and ending.isprintable() else OTHER_ENDINGS


def add_up(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Returns the sums of counts by ending; the rarest endings are summed in `OTHER_ENDINGS` where there are many."""
    total = Counter[str]()
    for each in counts:
        total.update(each)
        if len(total) > 2 * _MOST_ENDINGS:
            total = _bounded(total)
    return dict(sorted(_bounded(total).items()))


def _bounded(counts: Counter[str]) -> Counter[str]:
    endings = [ending for ending in counts if ending.startswith(".")]
    if len(endings) <= _MOST_ENDINGS:
        return counts
    rare = sorted(endings, key=lambda ending: (-counts[ending], ending))[_MOST_ENDINGS:]
    kept = Counter({ending: number for ending, number in counts.items() if ending not in set(rare)})
    kept[OTHER_ENDINGS] += sum(counts[ending] for ending in rare)
    return kept
