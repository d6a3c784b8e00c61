"""An object in a store over the network: S3, Google Cloud or Azure.

Every failure is raised as an error of `pipeline.store.errors`. Transient failures are repeated until
`StoreConfig.deadline_s`, see `pipeline.store.retry`.

S3 is tested against a real server. Google Cloud and Azure are untested and use the defaults of their client.
"""

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

import obstore
from obstore.store import ObjectStore

from pipeline.store.block_reader import BLOCK_BYTES, BlockReader
from pipeline.store.clients import open_client
from pipeline.store.config import StoreConfig
from pipeline.store.errors import ChangedError, DeniedError, ExistsError, NotFoundError, StoreError, TransientError
from pipeline.store.meter import count_fetch
from pipeline.store.object_info import ObjectInfo
from pipeline.store.pages import open_pages
from pipeline.store.parallel_listing import LISTING_THREADS, list_keys
from pipeline.store.placeholders import size_of_marked
from pipeline.store.retry import retrying, translated
from pipeline.store.uris import is_utf8, split_uri

T = TypeVar("T")

# Without s3:ListBucket, AWS answers 403 for a missing object too.
TO_READ = "s3:GetObject, or s3:ListBucket if there is no such object"
_TO_WRITE = "s3:PutObject"
_TO_DELETE = "s3:DeleteObject"

_BUFFER_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class RemoteObject:
    """One object, or a prefix of objects. The methods are documented in `pipeline.store.store_path.StorePath`."""

    uri: str
    config: StoreConfig

    def head(self) -> ObjectInfo | None:
        """See `StorePath.head`."""
        client, key = self._open()
        if not key:
            return None

        def request() -> Any:
            with translated(self.uri, TO_READ):
                return obstore.head(client, key)

        try:
            meta = self._retrying(request)
        except NotFoundError:
            return None
        return ObjectInfo(self.uri, meta["size"], meta["e_tag"] or "", meta["last_modified"].timestamp())

    def read(self, etag: str | None) -> bytes:
        """See `StorePath.read`."""
        client, key = self._open()

        def request() -> bytes | ObjectInfo:
            started = time.perf_counter()
            with self._gone_or_changed(), translated(self.uri, TO_READ):
                answer = obstore.get(client, key, options={"if_match": etag} if etag else None)
                answered, size = time.perf_counter(), answer.meta["size"]
                if size > BLOCK_BYTES:
                    return ObjectInfo(self.uri, size, answer.meta["e_tag"] or "")
                data = bytes(self._whole(answer.bytes(), size))
            count_fetch(started, answered, size)
            return data

        found = self._retrying(request)
        if isinstance(found, bytes):
            return found
        with self.open(size=found.size, etag=found.etag, read_ahead=True) as reader:
            return reader.read()

    def read_at_once(self, etag: str) -> bytes | None:
        """Returns None: every read of a remote object waits for the network."""
        return None

    def read_range(self, start: int, length: int, etag: str | None) -> bytes:
        """See `StorePath.read_range`."""
        # The client is opened before the deadline starts to count: boto3 needs a while to make the first one.
        opened = self._open()
        return bytes(self._retrying(lambda: self._fetch(opened, start, length, etag)))

    def open(self, *, size: int, etag: str | None, read_ahead: bool) -> BinaryIO:
        """See `StorePath.open`."""
        opened = self._open()

        def fetch_once(start: int, length: int) -> memoryview:
            return self._fetch(opened, start, length, etag)

        def fetch(start: int, length: int) -> memoryview:
            return self._retrying(lambda: fetch_once(start, length))

        return io.BufferedReader(BlockReader(size, fetch, fetch_once if read_ahead else None), _BUFFER_BYTES)

    def put(self, data: bytes | memoryview, *, if_absent: bool, if_match: str | None) -> str:
        """See `StorePath.put`."""
        client, key = self._open(upload_bytes=len(data))
        mode: Any = "create" if if_absent else {"e_tag": if_match} if if_match else "overwrite"
        attempts = 0

        def request() -> str:
            nonlocal attempts
            attempts += 1
            try:
                with translated(self.uri, _TO_WRITE):
                    return obstore.put(client, key, data, mode=mode, use_multipart=False)["e_tag"] or ""
            except (ExistsError, ChangedError):
                etag = self._etag_of_same(data) if attempts > 1 else None
                if etag is None:
                    raise
                return etag

        return self._retrying(request)

    def delete(self) -> None:
        """See `StorePath.delete`."""
        client, key = self._open()

        def request() -> None:
            with translated(self.uri, _TO_DELETE):
                obstore.delete(client, key)

        with suppress(NotFoundError):
            self._retrying(request)

    def list(self, on_skipped: Callable[[str], None], *, every_key: bool = False) -> Iterator[ObjectInfo]:
        """See `StorePath.list`."""
        itself = None
        # An account that may list but not read gets its answer from the listing.
        with suppress(DeniedError):
            itself = self.head()
        if itself is not None:
            yield itself
            return
        scheme, bucket, prefix = split_uri(self.uri)
        # Only S3 is listed by folders.
        threads = LISTING_THREADS if scheme == "s3" else 1
        for key, size, etag, modified_s in list_keys(
            open_pages(self.uri, self.config),
            prefix and prefix + "/",
            uri=self.uri,
            deadline_s=self.config.deadline_s,
            threads=threads,
        ):
            if size < 0 and every_key and scheme == "s3" and is_utf8(key) and not key.endswith("/"):
                yield ObjectInfo(f"{scheme}://{bucket}/{key}", size_of_marked(size), etag, modified_s)
            elif size < 0:
                on_skipped(key)
            else:
                yield ObjectInfo(f"{scheme}://{bucket}/{key}", size, etag, modified_s)

    def remove_below(self) -> int:
        """See `StorePath.remove_below`."""
        found = [RemoteObject(info.uri, self.config) for info in self.list(lambda name: None)]
        for each in found:
            each.delete()
        return len(found)

    def sweep_temporaries(self) -> int:
        """Returns 0: an upload that breaks off leaves no object."""
        return 0

    # ---- Requests

    def _open(self, upload_bytes: int = 0) -> tuple[ObjectStore, str]:
        return open_client(self.uri, self.config, upload_bytes=upload_bytes)

    def _retrying(self, request: Callable[[], T]) -> T:
        return retrying(self.uri, self.config.deadline_s, request)

    def _once(self) -> "RemoteObject":
        """Returns the same object without retries, for requests inside an attempt that is repeated as a whole."""
        return RemoteObject(self.uri, self.config.bounded(deadline_s=0.0))

    @contextmanager
    def _gone_or_changed(self) -> Iterator[None]:
        """Turns `ChangedError` into `NotFoundError` if the object is missing, since some stores answer 412 then."""
        try:
            yield
        except ChangedError:
            if self._once().head() is None:
                raise NotFoundError(f"{self.uri}: not found") from None
            raise

    def _etag_of_same(self, data: bytes | memoryview) -> str | None:
        """Returns the ETag of the object if the object has exactly these bytes; else None."""
        there = self._once().head()
        if there is None or there.size != len(data):
            return None
        try:
            return there.etag if self._once().read(there.etag) == data else None
        except (NotFoundError, ChangedError):
            # Another writer replaced or removed the object between the two requests.
            return None

    def _whole(self, data: obstore.Bytes, length: int) -> memoryview:
        if len(data) != length:
            raise TransientError(f"{self.uri}: only {len(data)} of {length} bytes came")
        return memoryview(data)

    def _fetch(self, opened: tuple[ObjectStore, str], start: int, length: int, etag: str | None) -> memoryview:
        """Returns the bytes of a range of the object; makes one attempt."""
        client, key = opened
        started = time.perf_counter()
        with self._gone_or_changed(), translated(self.uri, TO_READ):
            options: Any = {"range": (start, start + length)} | ({"if_match": etag} if etag else {})
            answer = obstore.get(client, key, options=options)
            answered = time.perf_counter()
            if start + length > answer.meta["size"]:
                raise StoreError(f"{self.uri}: ends before byte {start + length}")
            data = self._whole(answer.bytes(), length)
        count_fetch(started, answered, length)
        return data
