"""`StorePath`: a path in a store, with the same operations on S3, Google Cloud, Azure and the local disk.

`_backend` picks the implementation by the URI's scheme: `pipeline.store.remote` or `pipeline.store.local_disk`. Both
raise the errors of `pipeline.store.errors`. docs/operate/store-faults.md lists the faults and their consequences.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Protocol

from pipeline.store.config import StoreConfig
from pipeline.store.local_disk import LocalFile
from pipeline.store.object_info import ObjectInfo
from pipeline.store.odd_keys import OddKeyObject, has_empty_part
from pipeline.store.remote import RemoteObject
from pipeline.store.uris import is_local, join_uri, local_path, name_of, shown

logger = logging.getLogger(__name__)


class Backend(Protocol):
    """A path in one kind of store. Each method does what the method of `StorePath` with the same name documents."""

    def head(self) -> ObjectInfo | None:
        """See `StorePath.head`."""

    def read(self, etag: str | None) -> bytes:
        """See `StorePath.read`."""

    def read_at_once(self, etag: str) -> bytes | None:
        """See `StorePath.read_at_once`."""

    def read_range(self, start: int, length: int, etag: str | None) -> bytes:
        """See `StorePath.read_range`; the length is not 0."""

    def open(self, *, size: int, etag: str | None, read_ahead: bool) -> BinaryIO:
        """See `StorePath.open`."""

    def put(self, data: bytes | memoryview, *, if_absent: bool, if_match: str | None) -> str:
        """See `StorePath.put`."""

    def delete(self) -> None:
        """See `StorePath.delete`."""

    def list(self, on_skipped: Callable[[str], None], *, every_key: bool = False) -> Iterator[ObjectInfo]:
        """See `StorePath.list`."""

    def remove_below(self) -> int:
        """See `StorePath.remove_below`."""

    def sweep_temporaries(self) -> int:
        """See `StorePath.sweep_temporaries`."""


@dataclass(frozen=True, slots=True)
class StorePath:
    """The path of an object, a prefix, a file or a folder. Making a path sends no request.

    Attributes:
        uri: Canonical URI, see `pipeline.store.uris`.
        config: Account, endpoint and time limits of the requests.
    """

    uri: str
    config: StoreConfig = field(default_factory=StoreConfig)

    def __str__(self) -> str:
        return self.uri

    @property
    def name(self) -> str:
        """The last part of the URI."""
        return name_of(self.uri)

    @property
    def shown(self) -> str:
        """The path as a user would type it: a file path on the local disk, else the URI."""
        return shown(self.uri)

    @property
    def is_local(self) -> bool:
        """True for a path on this machine's disk."""
        return is_local(self.uri)

    @property
    def local_path(self) -> Path | None:
        """The file path on this machine's disk; None for a path in an object store."""
        return local_path(self.uri) if self.is_local else None

    def join(self, *parts: str) -> "StorePath":
        """Returns the path of a name, given in parts, below this path."""
        return StorePath(join_uri(self.uri, *parts), self.config)

    def at(self, uri: str) -> "StorePath":
        """Returns the path of another URI, with the same account, endpoint and time limits."""
        return StorePath(uri, self.config)

    def bounded(self, deadline_s: float, timeout_s: float = float("inf")) -> "StorePath":
        """Returns the path with its time limits lowered to these values; a deadline of 0 sends each request once."""
        return replace(self, config=self.config.bounded(deadline_s, timeout_s))

    def head(self) -> ObjectInfo | None:
        """Returns size, ETag and last-modified time of the object; None if there is no such object."""
        return self._backend().head()

    def read(self, etag: str | None = None) -> bytes:
        """Returns the whole object.

        Raises:
            NotFoundError: There is no such object.
            ChangedError: The object does not have this ETag.
        """
        return self._backend().read(etag)

    def read_at_once(self, etag: str) -> bytes | None:
        """Returns the content of a local file that is in the memory of the operating system.

        Returns None for any other file and for every remote object.

        Raises:
            NotFoundError: There is no such object.
            ChangedError: The object does not have this ETag.
        """
        return self._backend().read_at_once(etag)

    def read_range(self, start: int, length: int, etag: str | None = None) -> bytes:
        """Returns exactly `length` bytes of the object from byte `start` on.

        Raises:
            NotFoundError: There is no such object.
            ChangedError: The object does not have this ETag.
            StoreError: The object ends before the range does.
        """
        return self._backend().read_range(start, length, etag) if length else b""

    def open(self, *, size: int, etag: str | None, read_ahead: bool = True) -> BinaryIO:
        """Opens one version of the object as a seekable file, for tarfile, gzip and `pyarrow.PythonFile`.

        The caller must close the file.

        Args:
            size: Size of the object in bytes.
            etag: ETag of the version; None takes any version.
            read_ahead: True fetches the next block of a remote object while the current block is read.

        Raises:
            NotFoundError, ChangedError: A local file raises them here, a remote object at the first read.
            StoreError: Each read may raise a store error; tarfile, gzip and pyarrow pass the error on unchanged.
        """
        return self._backend().open(size=size, etag=etag, read_ahead=read_ahead)

    def put(self, data: bytes | memoryview, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """Writes the whole object by one request and returns its ETag.

        If the answer to a conditional write is lost, the write is repeated, and the store may refuse the repetition
        because the first write has succeeded. Then the object is read back: if the object has the bytes that were sent,
        the write has succeeded.

        Args:
            if_absent: True writes only if there is no object under the name.
            if_match: ETag that the present object must have; None sets no such condition.

        Raises:
            ExistsError: `if_absent` is True, and the name is taken.
            ChangedError: The object has another ETag than `if_match`, or there is no object.
        """
        return self._backend().put(data, if_absent=if_absent, if_match=if_match)

    def delete(self) -> None:
        """Removes the object; does nothing if there is no such object."""
        self._backend().delete()

    def list(self, *, on_skipped: Callable[[str], None] | None = None, every_key: bool = False) -> Iterator[ObjectInfo]:
        """Yields every object below the folder or prefix; if the path names an object, yields that object.

        Objects come in the order of the code points of their URIs, on every store. Placeholders of folders that are not
        empty are left out.

        Args:
            on_skipped: Called with each name that cannot be read: names that are not UTF-8, dangling links, keys with
                empty parts or control characters. The number of such names is logged.
            every_key: True yields keys on S3 with empty parts, with `.` or `..` parts and with control characters too.
                Reading such an object raises an `UnaddressableError`, unless its key has only empty parts.

        Raises:
            StoreError: The store refuses a request, at the start or while the objects are iterated. A missing bucket is
                a `NotFoundError`.
        """
        skipped, first_skipped = 0, ""

        def skip(name: str) -> None:
            nonlocal skipped, first_skipped
            first_skipped = first_skipped or name
            skipped += 1
            if on_skipped is not None:
                on_skipped(name)

        yield from self._backend().list(skip, every_key=every_key)
        if skipped:
            logger.warning("store.names_skipped uri=%s names=%d first=%r", self.uri, skipped, first_skipped)

    def remove_below(self) -> int:
        """Removes everything below the folder and returns the number of removed objects.

        A folder on the local disk is removed as a whole, and counts as one object.

        Raises:
            OSError: The local disk refuses.
        """
        return self._backend().remove_below()

    def sweep_temporaries(self) -> int:
        """Removes files that killed writers left on a local disk over an hour ago; returns their number."""
        return self._backend().sweep_temporaries()

    def _backend(self) -> Backend:
        if self.is_local:
            return LocalFile(self.uri)
        kind = OddKeyObject if has_empty_part(self.uri) else RemoteObject
        return kind(self.uri, self.config)
