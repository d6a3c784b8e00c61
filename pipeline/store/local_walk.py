"""Lists a folder on the local disk in the order of code points and in bounded memory."""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

from pipeline.store.checked_file import etag_of, store_errors
from pipeline.store.external_sort import Entry, Sorter, Spool

TEMPORARY = re.compile(r"\.(.*)\.[0-9a-f]{16}\.tmp", re.DOTALL)
"""Pattern of the names of temporary files, which a writer has not finished."""


def walk(path: str, on_skipped: Callable[[str], None]) -> Iterator[Entry]:
    """Yields every regular file below a folder in the order of code points; if `path` is a file, yields that file.

    An entry is the path, the size in bytes, the ETag and the last-modified time. Links to files and folders are
    followed, except a link to a folder that the link lies in. Temporary files of `put` are left out. The names of a
    folder are sorted in bounded memory.

    Args:
        on_skipped: Called with the path of each entry that is left out: names that are not UTF-8, dangling or looping
            links, and entries that are neither files nor folders.
    """
    with store_errors(path):
        try:
            status = Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return
    if stat.S_ISREG(status.st_mode):
        yield path, status.st_size, etag_of(status), status.st_mtime
    elif stat.S_ISDIR(status.st_mode):
        with closing(Spool()) as spool:
            yield from _walk(path, frozenset(), spool, on_skipped)


def _walk(
    folder: str, above: frozenset[tuple[int, int]], spool: Spool, on_skipped: Callable[[str], None]
) -> Iterator[Entry]:
    names = Sorter(spool)
    with store_errors(folder):
        status = Path(folder).stat()
        place = (status.st_dev, status.st_ino)
        if place in above:
            on_skipped(folder)
            return
        with os.scandir(folder) as scan:
            names.add(_entries(scan, on_skipped))
    for name, size, etag, modified_s in names:
        path = f"{folder.rstrip('/')}/{name}"
        if name.endswith("/"):
            yield from _walk(path[:-1], above | {place}, spool, on_skipped)
        else:
            yield path, size, etag, modified_s


def _entries(scan: Iterable[os.DirEntry[str]], on_skipped: Callable[[str], None]) -> Iterator[Entry]:
    """Yields the entries of one folder; names of folders end with a slash, so that a folder sorts as its files do."""
    for entry in scan:
        if TEMPORARY.fullmatch(entry.name):
            continue
        try:
            entry.name.encode()
            status = entry.stat()
        except UnicodeEncodeError:
            on_skipped(os.fsencode(entry.path).decode("utf-8", "backslashreplace"))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):
                raise
            on_skipped(entry.path)
        else:
            if stat.S_ISREG(status.st_mode):
                yield entry.name, status.st_size, etag_of(status), status.st_mtime
            elif stat.S_ISDIR(status.st_mode):
                yield entry.name + "/", 0, "", 0.0
            else:
                on_skipped(entry.path)
