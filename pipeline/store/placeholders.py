"""Tells objects from what stores keep for folders, and from keys that no request can name."""

from collections.abc import Callable, Iterable, Iterator

from pipeline.store.external_sort import Entry
from pipeline.store.uris import is_addressable

# The size of an entry that stands for a key which cannot be addressed.
UNADDRESSABLE = -1

# Empty objects that may be placeholders wait for this many entries before the store is asked.
_MAX_WAITING = 1000


def told_apart(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Without the placeholders that end with a slash; what cannot be addressed gets the size that says so."""
    for entry in entries:
        key, size = entry[:2]
        if is_addressable(key):
            yield entry
        elif size > 0 or not is_addressable(key.removesuffix("/")):
            yield key, UNADDRESSABLE, "", 0.0


def without_placeholders(entries: Iterable[Entry], holds_something: Callable[[str], bool]) -> Iterator[Entry]:
    """Without the empty objects below whose key, as a folder, there is something: what stores keep for a folder.

    That something comes later, behind all keys that go on with a character smaller than a slash. What has come since
    the first undecided one waits; if it becomes too much, the store is asked.
    """
    waiting: list[Entry] = []
    # The undecided keys among them. Each begins with the one before it, so that the last is decided first.
    undecided: list[str] = []
    dropped: set[str] = set()
    for entry in entries:
        key, size = entry[:2]
        while undecided and size != UNADDRESSABLE and key > (folder := undecided[-1] + "/"):
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
