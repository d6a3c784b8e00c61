"""The local disk with an object store's promises: whole files, create-only, compare-and-swap, durable at return.

Paths are absolute. Network file systems are not supported: their locks, links and ETags promise less.
"""

import errno
import fcntl
import io
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from pipeline.store.errors import ChangedError, ExistsError, NotFoundError, StoreError, from_os_error
from pipeline.store.external_sort import Entry, Sorter, Spool
from pipeline.store.meter import count_fetch, waiting

_TEMPORARY = re.compile(r"\.(.*)\.[0-9a-f]{16}\.tmp", re.DOTALL)
# A writer that is still alive after this long has lost its lease long ago.
_ABANDONED_S = 3600.0
# Folders whose own names are known to be on the disk.
_synced_folders: set[Path] = set()
# Linux' flag for a read that gives up where it would wait.
_DO_NOT_WAIT: int | None = getattr(os, "RWF_NOWAIT", None)
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def etag_of(status: os.stat_result) -> str:
    """The file's version: every write through `put` makes a new file, so the inode tells what the clock does not."""
    return f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"


def file_status(path: str) -> os.stat_result | None:
    """The status of a regular file, links followed; None if there is none."""
    with _store_errors(path):
        try:
            status = Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
    return status if stat.S_ISREG(status.st_mode) else None


def walk(path: str, on_skipped: Callable[[str], None]) -> Iterator[Entry]:
    """Every regular file below a folder, or the one file that `path` is, in the order of their names' code points.

    Each is told as its path, size in bytes, ETag and last-modified time. Links to files and folders are followed, but
    for one that leads to a folder which it lies in. Temporary files of `put` are not there, as half-written objects are
    not there in an object store. A folder's names are sorted in bounded memory.

    Args:
        on_skipped: told the path of each entry that is not UTF-8, a dangling link or looping link, or no file.
    """
    with _store_errors(path):
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
    with _store_errors(folder):
        status = Path(folder).stat()
        place = (status.st_dev, status.st_ino)
        if place in above:
            on_skipped(folder)
            return
        with os.scandir(folder) as scan:
            names.add(_told_apart(scan, on_skipped))
    for name, size, etag, modified_s in names:
        path = f"{folder.rstrip('/')}/{name}"
        if name.endswith("/"):
            yield from _walk(path[:-1], above | {place}, spool, on_skipped)
        else:
            yield path, size, etag, modified_s


def _told_apart(scan: Iterable[os.DirEntry[str]], on_skipped: Callable[[str], None]) -> Iterator[Entry]:
    """The files by name; a folder's name ends with a slash, since it sorts as its files' names do."""
    for entry in scan:
        if _TEMPORARY.fullmatch(entry.name):
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


def read_at_once(path: str, etag: str) -> bytes | None:
    """All of a file whose content the system has in memory; None if the disk would have to be waited for.

    Raises:
        NotFoundError: there is no such regular file.
        ChangedError: it is not, or no longer, the version asked for.
    """
    if _DO_NOT_WAIT is None:
        return None
    started = time.perf_counter()
    with _store_errors(path):
        descriptor, status = _open_regular(path)
        try:
            _check_version(status, path, etag)  # before it is given room: another version may have any size
            data = bytearray(status.st_size)
            with suppress(OSError):  # not in memory, or a file system that does not say
                if os.preadv(descriptor, [data], 0, _DO_NOT_WAIT) == status.st_size:
                    _check_version(os.fstat(descriptor), path, etag)
                    count_fetch(started, started, len(data))
                    return bytes(data)
            return None
        finally:
            os.close(descriptor)


def _open_regular(path: str) -> tuple[int, os.stat_result]:
    """A descriptor of a regular file, to read from, and the file's status."""
    try:
        # Without O_NONBLOCK a named pipe would wait here for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except NotADirectoryError:
        raise NotFoundError(f"file://{path}: not found") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise NotFoundError(f"file://{path}: not a file")
    return descriptor, status


def _check_version(status: os.stat_result, path: str, etag: str | None) -> None:
    if etag and etag_of(status) != etag:
        raise ChangedError(f"file://{path}: does not have the ETag asked for")


class CheckedFile(io.FileIO):
    """A file open for reading whose ETag is checked at opening and after each read.

    Raises:
        NotFoundError: there is no such regular file.
        ChangedError: it is not, or no longer, the version asked for.
    """

    def __init__(self, path: str, etag: str | None):
        self._path, self._etag = path, etag
        with _store_errors(path):
            super().__init__(_open_regular(path)[0], "rb")
        self._check()

    def _check(self) -> None:
        try:
            _check_version(os.fstat(self.fileno()), self._path, self._etag)
        except ChangedError:
            self.close()
            raise

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """How many bytes were read into the buffer; 0 at the end."""
        started = time.perf_counter()
        with waiting(), _store_errors(self._path):
            count = super().readinto(buffer)
        self._check()
        count_fetch(started, started, count or 0)
        return count or 0

    def readall(self) -> bytes:
        """The bytes from here to the end."""
        started = time.perf_counter()
        with _store_errors(self._path):
            data = super().readall()
        self._check()
        count_fetch(started, started, len(data or b""))
        return data or b""

    # FileIO's own would go round the check.
    read = io.RawIOBase.read  # type: ignore[assignment]


def put(path: str, data: bytes | memoryview, *, if_absent: bool, if_match: str | None) -> str:
    """Writes a whole file and returns its ETag; both it and its name are on the disk then.

    Raises:
        ExistsError: `if_absent`, and there is something under that name.
        ChangedError: the file there does not have the ETag `if_match`, or there is none.
    """
    final = Path(path)
    with _store_errors(path):
        _make_folders(final.parent)
        _sync_names_above(final.parent)
        # A name may have 255 bytes, and the temporary one is longer.
        short_name = final.name.encode()[:120].decode(errors="ignore")
        temporary = final.with_name(f".{short_name}.{secrets.token_hex(8)}.tmp")
        try:
            etag = _write(temporary, data)
            if if_absent:
                try:
                    final.hardlink_to(temporary)
                except FileExistsError:
                    raise ExistsError(f"file://{path}: exists already") from None
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
                    raise StoreError(
                        f"file://{path}: this file system has no hard links, which create-only needs"
                    ) from None
            else:
                with _lock(final.parent):
                    if if_match and ((status := file_status(path)) is None or etag_of(status) != if_match):
                        raise ChangedError(f"file://{path}: does not have the ETag asked for")
                    temporary.replace(final)
        finally:
            # A disk that is full or broken may refuse this too; what counts is why it was written in vain, or its name.
            with suppress(OSError):
                temporary.unlink()
        _sync_folder(final.parent)
    return etag


def delete(path: str) -> None:
    """Removes a file; nothing happens if there is none."""
    folder = Path(path).parent
    with _store_errors(path), suppress(FileNotFoundError, NotADirectoryError), _lock(folder):
        Path(path).unlink()
        _sync_folder(folder)


def sweep(path: str) -> int:
    """Removes what killed writers left below a folder, and returns how many files that were."""
    count = 0
    for folder, _, names in os.walk(path):
        for name in filter(_TEMPORARY.fullmatch, names):
            # Another process may be sweeping too.
            leftover = Path(folder, name)
            with suppress(NotFoundError), _store_errors(str(leftover)):
                if time.time() - leftover.lstat().st_mtime > _ABANDONED_S:
                    leftover.unlink()
                    count += 1
    return count


def _write(temporary: Path, data: bytes | memoryview) -> str:
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        # Before the name appears: after a power cut it must not stand for an empty file.
        os.fsync(descriptor)
        return etag_of(os.fstat(descriptor))
    finally:
        os.close(descriptor)


def _make_folders(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folders(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file is where a folder is needed", str(folder)) from None
    _synced_folders.discard(folder)


def _sync_names_above(folder: Path) -> None:
    """Puts the name of a folder on the disk, and those of the folders above it: once in a process' life for each.

    Also of folders that were there: another process may have made one this moment, or the user, and neither need have
    waited for the disk.
    """
    unsynced = []
    while folder not in _synced_folders and not folder.is_mount():
        unsynced.append(folder)
        folder = folder.parent
    for folder in reversed(unsynced):
        # One that may not be read lies above what is ours, and was there before.
        with suppress(PermissionError):
            _sync_folder(folder.parent)
        _synced_folders.add(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Holds the folder against other processes' and threads' compare-and-swap; freed by the kernel if this one dies."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _store_errors(path: str) -> Iterator[None]:
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise from_os_error(f"file://{path}", error) from None
