"""Lists the keys of a store in the order of their code points, several folders at a time, in bounded memory.

A folder whose keys need more than one page is split into parts, its own objects and its folders, as long as threads may
lack work. Each part is listed completely and sorted, and the reader takes one part after the other. Entries that are
listed ahead of the reader wait in a `Spool`. The listing does not rely on the order of the store, with one exception:
if the store promises to list in order, and no thread has started a folder, the reader takes that folder page by page.

A folder of many objects and few folders cannot be split, and is listed by one request after the other.
"""

import heapq
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, groupby

from pipeline.store.errors import StoreError
from pipeline.store.external_sort import Entry, Sorter, Spool
from pipeline.store.pages import Page, PageSource
from pipeline.store.placeholders import mark_unaddressable, without_placeholders
from pipeline.store.retry import retrying

# Folders that are listed at a time. With 0.1 s for each page, one process can parse no more.
LISTING_THREADS = 16
# Entries that may be listed ahead of the reader, so that a reader that stops early has not paid for the whole listing.
_MAX_ENTRIES_AHEAD = 5_000_000
# A level of folders whose objects and folders need more pages than this number is not split.
_MAX_LEVEL_PAGES = 16


def list_keys(
    source: PageSource,
    prefix: str,
    *,
    uri: str,
    deadline_s: float,
    threads: int = LISTING_THREADS,
    max_entries_ahead: int = _MAX_ENTRIES_AHEAD,
) -> Iterator[Entry]:
    """Yields an entry for every key that begins with `prefix`, in the order of code points.

    An entry has the key, the size in bytes, the ETag and the last-modified time. Placeholders of folders are left out:
    empty objects whose key ends with a slash, or is the folder of another key. A key that cannot be addressed has a
    negative size, see `mark_unaddressable`.

    Args:
        source: Source of the pages.
        prefix: Empty, or ends with a slash.
        uri: URI that is listed, for messages.
        deadline_s: Seconds in which a failing request for a page is repeated.
        threads: Folders that are listed at a time; 1 lists one page after the other.
        max_entries_ahead: Entries that may be listed ahead of the reader.

    Raises:
        StoreError: The store refuses a request while the entries are iterated.
    """
    with closing(_Listing(source, uri, deadline_s, threads, max_entries_ahead)) as listing:
        yield from without_placeholders(listing.read(prefix), listing.holds_something)


@dataclass(slots=True, eq=False)
class _Part:
    """The keys with one prefix, or neighbouring objects of one level.

    Attributes:
        is_claimed: True if a thread or the reader has begun to list the part.
        outcome: The smaller parts that the part was split into, its sorted entries, or the error; None until the part
            has been listed.
    """

    prefix: str
    is_claimed: bool = False
    outcome: "list[_Part] | Sorter | Exception | None" = None


class _Listing:
    """One listing: a heap of parts that wait, threads that list parts, and one reader."""

    def __init__(self, source: PageSource, uri: str, deadline_s: float, threads: int, max_entries_ahead: int) -> None:
        self._source, self._uri, self._deadline_s, self._threads = source, uri, deadline_s, threads
        self._max_entries_ahead = max_entries_ahead
        self._spool = Spool()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="listing")
        # Guards the attributes below, and is notified when one of them changes.
        self._changed = threading.Condition()
        self._waiting: list[tuple[str, _Part]] = []
        self._entries_ahead = 0
        self._read_part: _Part | None = None
        self._is_closed = False

    def close(self) -> None:
        """Ends each thread after its current page."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._spool.close()

    # ---- The reader's side

    def read(self, prefix: str) -> Iterator[Entry]:
        """Yields the entries of all keys with this prefix, in order."""
        levels = [iter([_Part(prefix)])]
        while levels:
            part = next(levels[-1], None)
            if part is None:
                levels.pop()
                continue
            outcome = self._outcome(part)
            if isinstance(outcome, list):
                levels.append(iter(outcome))
            else:
                yield from outcome

    def holds_something(self, prefix: str) -> bool:
        """Returns True if there is an addressable key with this prefix."""
        entries = (entry for page in self._pages(prefix) for entry in mark_unaddressable(page.entries))
        return any(entry[1] >= 0 for entry in entries)

    def _outcome(self, part: _Part) -> "list[_Part] | Iterable[Entry]":
        """Waits until a thread has listed a part, and returns its content; lists a part that no thread has begun."""
        with self._changed:
            self._read_part = part
            self._changed.notify_all()
            if part.is_claimed:
                self._changed.wait_for(lambda: part.outcome is not None)
            part.is_claimed = True
        outcome = part.outcome
        if outcome is None:
            found = self._explore(part)
            if self._source.in_order and not isinstance(found, list):
                return self._checked(found)
            outcome = self._listed(part, found)
        if isinstance(outcome, Exception):
            raise outcome
        if isinstance(outcome, Sorter):
            with self._changed:
                self._entries_ahead -= outcome.num_entries
                self._changed.notify_all()
        return outcome

    def _checked(self, pages: Iterable[Page]) -> Iterator[Entry]:
        last_key = ""
        for page in pages:
            for entry in mark_unaddressable(page.entries):
                if entry[0] < last_key:
                    raise StoreError(f"{self._uri}: the store listed {entry[0]!r} after {last_key!r}, out of order")
                if entry[0] > last_key:
                    yield entry
                last_key = entry[0]

    # ---- The threads' side

    def _work(self) -> None:
        """Lists waiting parts until no part waits."""
        while (part := self._claim_first()) is not None:
            outcome: list[_Part] | Sorter | Exception
            try:
                outcome = self._listed(part, self._explore(part))
            except Exception as error:
                # The reader raises the error when it comes to the part.
                outcome = error
            with self._changed:
                part.outcome = outcome
                self._changed.notify_all()

    def _claim_first(self) -> _Part | None:
        with self._changed:
            while self._waiting:
                part = heapq.heappop(self._waiting)[1]
                if not part.is_claimed:
                    part.is_claimed = True
                    return part
        return None

    def _explore(self, part: _Part) -> "list[_Part] | Iterator[Page]":
        """Returns the smaller parts that a part was split into; if splitting does not pay, returns the part's pages."""
        pages = self._pages(part.prefix)
        first = next(pages)
        if first.token is not None and self._is_worth_splitting(first, part.prefix):
            parts = self._split(part.prefix)
            if parts is not None:
                self._offer(parts)
                return parts
        return chain((first,), pages)

    def _is_worth_splitting(self, first: Page, prefix: str) -> bool:
        """Returns True if threads may lack work, and the folders seem large enough for one request for each folder."""
        start = len(prefix)
        keys = [entry[0] for entry in first.entries]
        folders = {key[: key.find("/", start)] for key in keys if "/" in key[start:]}
        return 0 < len(folders) <= self._threads > 1 and len(self._waiting) < 8 * self._threads

    def _split(self, prefix: str) -> list[_Part] | None:
        """Returns the folders and the objects of a level as parts, in order; None if the level needs too many pages."""
        level: dict[str, Entry | None] = {}
        for number, page in enumerate(self._pages(prefix, delimited=True)):
            if number == _MAX_LEVEL_PAGES:
                return None
            for entry in page.entries:
                level.setdefault(entry[0], entry)
            for folder in page.folders:
                if not folder.startswith(prefix) or folder == prefix:
                    raise StoreError(f"{self._uri}: the store listed the folder {folder!r} below {prefix!r}")
                level[folder] = None
        parts: list[_Part] = []
        for is_folder, names in groupby(sorted(level), lambda name: level[name] is None):
            if is_folder:
                parts += map(_Part, names)
            else:
                sorter = Sorter(self._spool)
                sorter.add(mark_unaddressable(found for name in names if (found := level[name]) is not None))
                sorter.flush()
                parts.append(_Part("", True, sorter))
        return parts

    def _offer(self, parts: list[_Part]) -> None:
        with self._changed:
            for part in parts:
                if isinstance(part.outcome, Sorter):
                    self._entries_ahead += part.outcome.num_entries
                else:
                    heapq.heappush(self._waiting, (part.prefix, part))
        for _ in range(min(len(parts), self._threads)):
            self._pool.submit(self._work)

    def _listed(self, part: _Part, found: "list[_Part] | Iterator[Page]") -> "list[_Part] | Sorter":
        """Returns the sorted entries of a part's pages; if the part was split, returns the smaller parts instead."""
        if isinstance(found, list):
            return found
        sorter = Sorter(self._spool)
        for page in found:
            before = sorter.num_entries
            sorter.add(mark_unaddressable(page.entries))
            with self._changed:
                self._entries_ahead += sorter.num_entries - before
                # The part that the reader waits for is never held back: both sides would wait for each other.
                self._changed.wait_for(
                    lambda: self._entries_ahead < self._max_entries_ahead or self._read_part is part or self._is_closed
                )
        sorter.flush()
        return sorter

    def _pages(self, prefix: str, *, delimited: bool = False) -> Iterator[Page]:
        """Yields all pages of the keys with a prefix; a request that fails is repeated until the deadline."""
        token: str | None = None

        def request() -> Page:
            if self._is_closed:
                raise StoreError(f"{self._uri}: the listing was closed")
            return self._source.page(prefix, token, delimited=delimited)

        while True:
            page = retrying(self._uri, self._deadline_s, request)
            if page.token is not None and page.token == token:
                raise StoreError(f"{self._uri}: the store lists the same page again and again")
            yield page
            token = page.token
            if token is None:
                return
