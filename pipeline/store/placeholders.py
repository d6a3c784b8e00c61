"""Separates objects from the placeholders that stores keep for folders, and from keys that no request can name."""

from collections.abc import Callable, Iterable, Iterator

from pipeline.store.external_sort import Entry
from pipeline.store.uris import is_addressable

# Number of entries that may wait behind an undecided empty object, before the store is asked.
_MAX_WAITING = 1000


def mark_unaddressable(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yields the entries except placeholders that end with a slash.

    Entries of other keys that cannot be addressed get a negative size, from which `size_of_marked` returns the size.
    """
    for entry in entries:
        key, size = entry[:2]
        if is_addressable(key):
            yield entry
        elif size > 0 or not is_addressable(key.removesuffix("/")):
            yield (key, ~size, *entry[2:])


def size_of_marked(size: int) -> int:
    """Returns the size in bytes of an object whose entry has a negative size."""
    return ~size


def without_placeholders(entries: Iterable[Entry], holds_something: Callable[[str], bool]) -> Iterator[Entry]:
    """Yields the entries except placeholders: empty objects whose key is also the folder of other objects.

    The objects of such a folder arrive after all keys that continue the folder's name with a character smaller than a
    slash. So an empty object stays undecided for a while, and all entries behind it wait. If too many entries wait, the
    store is asked.

    Args:
        holds_something: Function that returns True if there is an object below a folder.
    """
    waiting: list[Entry] = []
    # Keys of undecided objects among the waiting entries. Each key begins with the key before, so the last key is
    # decided first.
    undecided: list[str] = []
    dropped: set[str] = set()
    for entry in entries:
        key, size = entry[:2]
        while undecided and size >= 0 and key > (folder := undecided[-1] + "/"):
            if key.startswith(folder):
                dropped.add(undecided[-1])
            undecided.pop()
        if len(waiting) >= _MAX_WAITING:
            dropped.update(empty for empty in undecided if holds_something(empty + "/"))
            undecided.clear()
        if waiting and not undecided:
            yield from (entry for entry in waiting if entry[0] not in dropped)
            waiting, dropped = [], set()
        if size == 0:
            undecided.append(key)
        if undecided:
            waiting.append(entry)
        else:
            yield entry
    yield from (entry for entry in waiting if entry[0] not in dropped)
