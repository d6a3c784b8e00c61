"""Reads files on the local disk, and checks that all bytes of a read come from one version of the file."""

import io
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.store.errors import ChangedError, NotFoundError, StoreError, from_os_error
from pipeline.store.meter import count_fetch, waiting

# Flag of Linux for a read that fails instead of waiting for the disk; None on other systems.
_DO_NOT_WAIT: int | None = getattr(os, "RWF_NOWAIT", None)


def etag_of(status: os.stat_result) -> str:
    """Returns the ETag of a file. Each `put` makes a new file, so versions with equal times have different inodes."""
    return f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"


def file_status(path: str) -> os.stat_result | None:
    """Returns the status of a regular file, following links; None if there is no such file."""
    with store_errors(path):
        try:
            status = Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
    return status if stat.S_ISREG(status.st_mode) else None


def read_at_once(path: str, etag: str) -> bytes | None:
    """Returns the content of a file that the operating system has in memory; None if a read would wait for the disk.

    Raises:
        NotFoundError: There is no such regular file.
        ChangedError: The file has another ETag before or after the read.
    """
    if _DO_NOT_WAIT is None:
        return None
    started = time.perf_counter()
    with store_errors(path):
        descriptor, status = _open_regular(path)
        try:
            _check_version(status, path, etag)  # before memory is allocated: another version may have any size
            data = bytearray(status.st_size)
            with suppress(OSError):  # The content is not in memory, or the file system does not know the flag.
                if os.preadv(descriptor, [data], 0, _DO_NOT_WAIT) == status.st_size:
                    _check_version(os.fstat(descriptor), path, etag)
                    count_fetch(started, started, len(data))
                    return bytes(data)
            return None
        finally:
            os.close(descriptor)


def _open_regular(path: str) -> tuple[int, os.stat_result]:
    """Opens a regular file for reading, and returns its descriptor and its status."""
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
    """A file open for reading, whose ETag is checked at opening and after each read.

    Raises:
        NotFoundError: There is no such regular file.
        ChangedError: The file has another ETag at opening or after a read.
    """

    def __init__(self, path: str, etag: str | None):
        self._path, self._etag = path, etag
        with store_errors(path):
            super().__init__(_open_regular(path)[0], "rb")
        self._check()

    def _check(self) -> None:
        try:
            _check_version(os.fstat(self.fileno()), self._path, self._etag)
        except ChangedError:
            self.close()
            raise

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Reads bytes into the buffer and returns their number; 0 at the end of the file."""
        started = time.perf_counter()
        with waiting(), store_errors(self._path):
            count = super().readinto(buffer)
        self._check()
        count_fetch(started, started, count or 0)
        return count or 0

    def readall(self) -> bytes:
        """Returns the bytes from the current position to the end of the file."""
        started = time.perf_counter()
        with store_errors(self._path):
            data = super().readall()
        self._check()
        count_fetch(started, started, len(data or b""))
        return data or b""

    # The method of FileIO would bypass the check.
    read = io.RawIOBase.read  # type: ignore[assignment]


@contextmanager
def store_errors(path: str) -> Iterator[None]:
    """Translates errors of the operating system into store errors."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise from_os_error(f"file://{path}", error) from None
