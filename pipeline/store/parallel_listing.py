"""Lists a store's keys in the order of their code points, several folders at a time, in bounded memory.

A folder whose keys need more than one page is split into its own objects and its folders, as long as that makes enough
work for all threads; each part is listed whole and put in order, and the reader takes part after part. What is listed
ahead of the reader waits in a `Spool`. Nothing here relies on the order in which a store lists, but for one shortcut:
where the store vouches for it, a folder that nobody else has begun goes to the reader page by page.

A folder of many objects and few folders cannot be split, and is listed by one request after another.
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
from pipeline.store.placeholders import UNADDRESSABLE, told_apart, without_placeholders
from pipeline.store.retry import retrying

# Folders listed at a time: at 0.1 s a page that is as much as one process can parse.
LISTING_THREADS = 16
# How far the listing may be ahead of its reader, so that a reader who stops early has not paid for everything.
_MAX_ENTRIES_AHEAD = 5_000_000
# A level with more objects and folders than this many pages hold is not split.
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
    """Every key that begins with `prefix`, in the order of code points: key, size, ETag and last-modified time.

    Left out are the placeholders of folders: empty objects whose key ends with a slash, or goes on with one in another.
    A key that cannot be addressed comes with the size `UNADDRESSABLE`.

    Args:
        prefix: empty, or ending with a slash.
        uri: what is listed, for messages.
        deadline_s: how long one page is asked for again.
        threads: folders listed at a time; 1 lists one page after the other.

    Raises:
        StoreError: while iterating.
    """
    with closing(_Listing(source, uri, deadline_s, threads, max_entries_ahead)) as listing:
        yield from without_placeholders(listing.read(prefix), listing.holds_something)


@dataclass(slots=True, eq=False)
class _Part:
    """The keys with one prefix, or neighbours of one level.

    Attributes:
        is_claimed: somebody lists it.
        outcome: the parts that it was split into, its keys, or why there are none; None while that is not known.
    """

    prefix: str
    is_claimed: bool = False
    outcome: "list[_Part] | Sorter | Exception | None" = None


class _Listing:
    """One listing: a heap of parts that nobody has begun, threads that list them, and the reader."""

    def __init__(self, source: PageSource, uri: str, deadline_s: float, threads: int, max_entries_ahead: int) -> None:
        self._source, self._uri, self._deadline_s, self._threads = source, uri, deadline_s, threads
        self._max_entries_ahead = max_entries_ahead
        self._spool = Spool()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="listing")
        # Guards all that follows, and is notified when it changes.
        self._changed = threading.Condition()
        self._waiting: list[tuple[str, _Part]] = []
        self._entries_ahead = 0
        self._read_part: _Part | None = None
        self._is_closed = False

    def close(self) -> None:
        """Ends the threads after the page that each is at."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._spool.close()

    # ---- The reader's side

    def read(self, prefix: str) -> Iterator[Entry]:
        """All keys with this prefix, in order."""
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
        """True if there is a key with this prefix that can be addressed."""
        return any(entry[1] != UNADDRESSABLE for page in self._pages(prefix) for entry in told_apart(page.entries))

    def _outcome(self, part: _Part) -> "list[_Part] | Iterable[Entry]":
        """What a part holds, once it is listed; the reader lists it itself if nobody has begun, so nobody is stuck."""
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
            for entry in told_apart(page.entries):
                if entry[0] < last_key:
                    raise StoreError(f"{self._uri}: the store listed {entry[0]!r} after {last_key!r}, out of order")
                if entry[0] > last_key:
                    yield entry
                last_key = entry[0]

    # ---- The threads' side

    def _work(self) -> None:
        """Lists parts until none is waiting."""
        while (part := self._claim_first()) is not None:
            outcome: list[_Part] | Sorter | Exception
            try:
                outcome = self._listed(part, self._explore(part))
            except Exception as error:
                # The reader raises it when it comes to this part.
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
        """The parts of a part that is worth splitting; the pages of any other."""
        pages = self._pages(part.prefix)
        first = next(pages)
        if first.token is not None and self._is_worth_splitting(first, part.prefix):
            parts = self._split(part.prefix)
            if parts is not None:
                self._offer(parts)
                return parts
        return chain((first,), pages)

    def _is_worth_splitting(self, first: Page, prefix: str) -> bool:
        """Whether threads may lack work, and the folders seem to be large enough for a request each."""
        start = len(prefix)
        keys = [entry[0] for entry in first.entries]
        folders = {key[: key.find("/", start)] for key in keys if "/" in key[start:]}
        return 0 < len(folders) <= self._threads > 1 and len(self._waiting) < 8 * self._threads

    def _split(self, prefix: str) -> list[_Part] | None:
        """The folders at this level, and between them the objects, in order; None if the level is too large."""
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
                sorter.add(told_apart(found for name in names if (found := level[name]) is not None))
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
        """Lists the pages of a part that is not split."""
        if isinstance(found, list):
            return found
        sorter = Sorter(self._spool)
        for page in found:
            before = sorter.num_entries
            sorter.add(told_apart(page.entries))
            with self._changed:
                self._entries_ahead += sorter.num_entries - before
                # The reader's own part goes on, or everybody would wait.
                self._changed.wait_for(
                    lambda: self._entries_ahead < self._max_entries_ahead or self._read_part is part or self._is_closed
                )
        sorter.flush()
        return sorter

    def _pages(self, prefix: str, *, delimited: bool = False) -> Iterator[Page]:
        """All pages, each asked for until it has come whole."""
        token: str | None = None

        def request() -> Page:
            if self._is_closed:
                raise StoreError(f"{self._uri}: the listing was given up")
            return self._source.page(prefix, token, delimited=delimited)

        while True:
            page = retrying(self._uri, self._deadline_s, request)
            if page.token is not None and page.token == token:
                raise StoreError(f"{self._uri}: the store lists the same page again and again")
            yield page
            token = page.token
            if token is None:
                return
