"""Objects on S3 whose keys have empty parts, as `a//b.jpg` has: boto3 reads them, since obstore cannot name them."""

import io
import time
from typing import Any, BinaryIO

from pipeline.store.block_reader import BlockReader
from pipeline.store.clients import listing_client
from pipeline.store.errors import ChangedError, NotFoundError, StoreError, TransientError, UnaddressableError
from pipeline.store.meter import count_fetch
from pipeline.store.object_info import ObjectInfo
from pipeline.store.remote import TO_READ, RemoteObject
from pipeline.store.retry import boto_translated
from pipeline.store.uris import is_addressable, split_uri


def has_empty_part(uri: str) -> bool:
    """Returns True for the canonical URI of a key on S3 that has an empty part."""
    return uri.startswith("s3://") and "//" in uri[len("s3://") :]


class OddKeyObject(RemoteObject):
    """An object that is read through boto3. It cannot be written or deleted: these methods raise the client's error."""

    def head(self) -> ObjectInfo | None:
        """See `StorePath.head`."""
        client, place = self._place()

        def request() -> Any:
            with boto_translated(self.uri, TO_READ):
                return client.head_object(**place)

        try:
            answer = self._retrying(request)
        except NotFoundError:
            return None
        return ObjectInfo(self.uri, answer["ContentLength"], answer.get("ETag", ""), answer["LastModified"].timestamp())

    def read(self, etag: str | None) -> bytes:
        """See `StorePath.read`."""
        info = self.head()
        if info is None:
            raise NotFoundError(f"{self.uri}: not found")
        if etag is not None and info.etag != etag:
            raise ChangedError(f"{self.uri}: does not have the ETag asked for")
        with self.open(size=info.size, etag=info.etag, read_ahead=False) as reader:
            return reader.read()

    def read_range(self, start: int, length: int, etag: str | None) -> bytes:
        """See `StorePath.read_range`."""
        return bytes(self._retrying(lambda: self._ranged(start, length, etag)))

    def open(self, *, size: int, etag: str | None, read_ahead: bool) -> BinaryIO:
        """See `StorePath.open`."""

        def fetch(start: int, length: int) -> memoryview:
            return self._retrying(lambda: self._ranged(start, length, etag))

        def fetch_once(start: int, length: int) -> memoryview:
            return self._ranged(start, length, etag)

        return io.BufferedReader(BlockReader(size, fetch, fetch_once if read_ahead else None))

    def _place(self) -> tuple[Any, dict[str, str]]:
        _, bucket, key = split_uri(self.uri)
        if not is_addressable("/".join(part for part in key.split("/") if part)):
            raise UnaddressableError(f"{self.uri!r}: a key with '.', '..' or control characters cannot be addressed")
        return listing_client(self.config), {"Bucket": bucket, "Key": key}

    def _ranged(self, start: int, length: int, etag: str | None) -> memoryview:
        """Returns the bytes of a range of the object; makes one attempt."""
        client, place = self._place()
        started = time.perf_counter()
        condition = {"IfMatch": etag} if etag else {}
        with boto_translated(self.uri, TO_READ):
            answer = client.get_object(**place, **condition, Range=f"bytes={start}-{start + length - 1}")
            answered = time.perf_counter()
            data = answer["Body"].read()
        if len(data) != length:
            size = int(answer.get("ContentRange", "").rpartition("/")[2] or 0)
            if start + length > size:
                raise StoreError(f"{self.uri}: ends before byte {start + length}")
            raise TransientError(f"{self.uri}: only {len(data)} of {length} bytes came")
        count_fetch(started, answered, length)
        return memoryview(data)
