"""A file on the local disk with the guarantees of an object store.

Files are whole or absent, writes are create-only or compare-and-swap if asked, and a write is durable when it returns.
Failing operations are not repeated. Network file systems are not supported: their locks, links and ETags guarantee
less.
"""

import errno
import fcntl
import io
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.store.checked_file import CheckedFile, etag_of, file_status, read_at_once, store_errors
from pipeline.store.errors import ChangedError, ExistsError, NotFoundError, StoreError
from pipeline.store.local_walk import TEMPORARY, walk
from pipeline.store.object_info import ObjectInfo

# Age at which a temporary file is abandoned: a writer that needs longer has lost its lease long ago.
_ABANDONED_S = 3600.0
# Folders whose names in their parent folders are known to be durable.
_synced_folders: set[Path] = set()
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_BUFFER_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class LocalFile:
    """One file or folder with a `file://` URI. The methods are documented in `pipeline.store.store_path.StorePath`."""

    uri: str

    @property
    def _path(self) -> str:
        return self.uri.removeprefix("file://")

    def head(self) -> ObjectInfo | None:
        """See `StorePath.head`."""
        status = file_status(self._path)
        return None if status is None else ObjectInfo(self.uri, status.st_size, etag_of(status), status.st_mtime)

    def read(self, etag: str | None) -> bytes:
        """See `StorePath.read`."""
        with CheckedFile(self._path, etag) as file:
            return file.readall()

    def read_at_once(self, etag: str) -> bytes | None:
        """See `StorePath.read_at_once`."""
        return read_at_once(self._path, etag)

    def read_range(self, start: int, length: int, etag: str | None) -> bytes:
        """See `StorePath.read_range`."""
        with io.BufferedReader(CheckedFile(self._path, etag)) as file:
            file.seek(start)
            data = file.read(length)
        if len(data) < length:
            raise StoreError(f"{self.uri}: ends before byte {start + length}")
        return data

    def open(self, *, size: int, etag: str | None, read_ahead: bool) -> BinaryIO:
        """See `StorePath.open`. Size and read-ahead are left to the operating system."""
        return io.BufferedReader(CheckedFile(self._path, etag), _BUFFER_BYTES)

    def list(self, on_skipped: Callable[[str], None], *, every_key: bool = False) -> Iterator[ObjectInfo]:
        """See `StorePath.list`."""
        for path, size, etag, modified_s in walk(self._path, on_skipped):
            yield ObjectInfo(f"file://{path}", size, etag, modified_s)

    def put(self, data: bytes | memoryview, *, if_absent: bool, if_match: str | None) -> str:
        """See `StorePath.put`. The file and its name are durable when the method returns."""
        final = Path(self._path)
        with store_errors(self._path):
            _make_folders(final.parent)
            _sync_names_above(final.parent)
            # A name may have at most 255 bytes, and the temporary name is longer than the final name.
            short_name = final.name.encode()[:120].decode(errors="ignore")
            temporary = final.with_name(f".{short_name}.{secrets.token_hex(8)}.tmp")
            try:
                etag = _write(temporary, data)
                if if_absent:
                    self._create(temporary)
                else:
                    with _lock(final.parent):
                        self._replace(temporary, if_match)
            finally:
                # A failure to remove the temporary file hides neither the error of the write nor its success.
                with suppress(OSError):
                    temporary.unlink()
            _sync_folder(final.parent)
        return etag

    def delete(self) -> None:
        """See `StorePath.delete`."""
        path = Path(self._path)
        with store_errors(self._path), suppress(FileNotFoundError, NotADirectoryError), _lock(path.parent):
            path.unlink()
            _sync_folder(path.parent)

    def remove_below(self) -> int:
        """See `StorePath.remove_below`."""
        if not Path(self._path).exists():
            return 0
        shutil.rmtree(self._path)
        return 1

    def sweep_temporaries(self) -> int:
        """See `StorePath.sweep_temporaries`."""
        count = 0
        for folder, _, names in os.walk(self._path):
            for name in filter(TEMPORARY.fullmatch, names):
                # Another process may sweep at the same time.
                leftover = Path(folder, name)
                with suppress(NotFoundError), store_errors(str(leftover)):
                    if time.time() - leftover.lstat().st_mtime > _ABANDONED_S:
                        leftover.unlink()
                        count += 1
        return count

    def _create(self, temporary: Path) -> None:
        try:
            Path(self._path).hardlink_to(temporary)
        except FileExistsError:
            raise ExistsError(f"{self.uri}: exists already") from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            raise StoreError(f"{self.uri}: this file system has no hard links, which create-only needs") from None

    def _replace(self, temporary: Path, if_match: str | None) -> None:
        """Replaces the file by the temporary file; the caller must hold the folder's lock."""
        if if_match and ((status := file_status(self._path)) is None or etag_of(status) != if_match):
            raise ChangedError(f"{self.uri}: does not have the ETag asked for")
        temporary.replace(self._path)


def _write(temporary: Path, data: bytes | memoryview) -> str:
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        # The bytes become durable before the name does: after a power cut no name may stand for an empty file.
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
    """Makes the names of a folder and of all folders above it durable, once for each folder in the life of the process.

    Existing folders are included: another process, or the user, may have made a folder a moment ago without a sync.
    """
    unsynced = []
    while folder not in _synced_folders and not folder.is_mount():
        unsynced.append(folder)
        folder = folder.parent
    for folder in reversed(unsynced):
        # A folder that this user may not read was made by somebody else, before this run.
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
    """Locks the folder, so that nobody else replaces or deletes a file in it; the kernel unlocks it after a crash."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
