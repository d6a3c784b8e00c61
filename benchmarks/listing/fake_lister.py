"""A store whose listing is computed: ten million keys that take no memory and are the same every time.

pages = FakePages([*image_folders(10_000_000, 1_000), tar_folder(1_000_000)])
for info in pages.list_objects(StorePath("s3://fake")): ...
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.store.external_sort import Entry
from pipeline.store.object_info import ObjectInfo
from pipeline.store.pages import Page
from pipeline.store.parallel_listing import LISTING_THREADS, list_keys
from pipeline.store.store_path import StorePath
from pipeline.store.uris import split_uri

PAGE_KEYS = 1000
# A prime: the multiples of `STEP` visit every object of a folder whose number of objects is no multiple of `STEP`.
STEP = 1_000_003
# Objects are modified one a second from this time on.
MODIFIED_S = 1_700_000_000.0
ETAG_FACTOR = 0x9E3779B97F4A7C15F39CC0605CEDC835


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of `num_objects` objects `<prefix><number, nine digits><ending>` of about `mean_bytes` each."""

    prefix: str
    num_objects: int
    ending: str
    mean_bytes: int


def image_folders(num_images: int, num_folders: int) -> list[Folder]:
    """Returns folders over which images are spread evenly, like folders of classes or days."""
    counts = [num_images // num_folders + (index < num_images % num_folders) for index in range(num_folders)]
    return [Folder(f"images/{index:06d}/", count, ".jpg", 110_000) for index, count in enumerate(counts)]


def tar_folder(num_tars: int) -> Folder:
    """Returns one folder of tars, like the folder of a WebDataset."""
    return Folder("tars/", num_tars, ".tar", 500_000_000)


class FakePages:
    """A `PageSource` of some folders, none of which lies in another folder.

    Args:
        is_shuffled: True lists the keys of a folder in a mixed order, as a store without an order does.
        page_s: Seconds that each page takes.
        threads: Number of folders that `list_objects` lists at a time.
    """

    def __init__(
        self,
        folders: Sequence[Folder],
        *,
        is_shuffled: bool = False,
        page_s: float = 0.0,
        threads: int = LISTING_THREADS,
    ) -> None:
        self.in_order = not is_shuffled
        self._page_s, self._threads = page_s, threads
        self._folders = sorted(folders, key=lambda folder: folder.prefix)
        self._prefixes = [folder.prefix for folder in self._folders]

    def list_objects(
        self, place: StorePath, *, on_skipped: Callable[[str], None] | None = None, every_key: bool = False
    ) -> Iterator[ObjectInfo]:
        """Yields objects as `StorePath.list` does; every bucket has the same objects."""
        scheme, bucket, prefix = split_uri(place.uri)
        deadline_s = place.config.deadline_s
        found = list_keys(self, prefix and prefix + "/", uri=place.uri, deadline_s=deadline_s, threads=self._threads)
        for key, size, etag, modified_s in found:
            assert size >= 0
            yield ObjectInfo(f"{scheme}://{bucket}/{key}", size, etag, modified_s)

    def page(self, prefix: str, token: str | None, *, delimited: bool = False) -> Page:
        """See `pipeline.store.pages.PageSource`; a token says where the next page begins."""
        if self._page_s:
            time.sleep(self._page_s)
        first = bisect_left(self._prefixes, prefix)
        end = bisect_left(self._prefixes, prefix + chr(0x10FFFF))
        if delimited and self._prefixes[first:end] != [prefix]:
            return self._level(len(prefix), first if token is None else int(token), end)
        index, number = (first, 0) if token is None else map(int, token.split(":"))
        entries: list[Entry] = []
        while index < end and len(entries) < PAGE_KEYS:
            until = min(number + PAGE_KEYS - len(entries), self._folders[index].num_objects)
            entries += self._entries(index, number, until)
            index, number = (index, until) if until < self._folders[index].num_objects else (index + 1, 0)
        return Page(entries, f"{index}:{number}" if index < end else None)

    def _entries(self, index: int, start: int, stop: int) -> list[Entry]:
        folder = self._folders[index]
        numbers: Iterable[int] = range(start, stop)
        if not self.in_order:
            numbers = (number * STEP % folder.num_objects for number in numbers)
        prefix, ending, spread = folder.prefix, folder.ending, folder.mean_bytes // 2
        return [
            (
                f"{prefix}{number:09d}{ending}",
                spread + number * STEP % (2 * spread),
                f'"{(number + index + 1) * ETAG_FACTOR % 2**128:032x}"',
                MODIFIED_S + number,
            )
            for number in numbers
        ]

    def _level(self, start: int, index: int, end: int) -> Page:
        folders: list[str] = []
        while index < end and len(folders) < PAGE_KEYS:
            prefix = self._prefixes[index]
            folders.append(prefix[: prefix.index("/", start) + 1])
            index = bisect_left(self._prefixes, folders[-1] + chr(0x10FFFF))
        return Page([], str(index) if index < end else None, folders)
