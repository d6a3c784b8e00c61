"""Objects at local paths and `s3://` URIs: listed, read, and placed in a scratch folder under plain names."""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from infra.audit.findings import UnusableError

_TAIL_BYTES = 64 * 1024
_NO_UTF8 = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Object:
    """One file or object; `size` is in bytes."""

    uri: str
    size: int

    @property
    def is_local(self) -> bool:
        """True for a file of the local disk."""
        return self.uri.startswith("file://")

    @property
    def is_nameable(self) -> bool:
        """False for an object that no request can name safely: its key has a `.` or `..` part, or a control character.

        Files of the local disk can always be named.
        """
        if self.is_local:
            return True
        parts = _bucket_and_key(self.uri)[1].split("/")
        return not any(part in (".", "..") for part in parts) and not _CONTROL.search(self.uri)


def canonical(text: str) -> str:
    """Returns the URI that the rows use for a path or URI.

    The URI of a local path is `file://` and the absolute path without links; the URI of an object is `s3://bucket/key`.

    Raises:
        UnusableError: The text is neither a path nor an `s3://` URI.
    """
    scheme, mark, rest = text.partition("://")
    if mark and scheme.lower() == "s3" and rest.strip("/"):
        bucket, _, key = rest.partition("/")
        return f"s3://{bucket}/{key.strip('/')}".rstrip("/")
    if mark and not (scheme.lower() == "file" and rest.startswith("/")):
        raise UnusableError(f"{text!r}: the audit reads local paths and s3:// only")
    if not text:
        raise UnusableError("an empty path")
    try:
        return f"file://{(Path(rest) if mark else Path(text).expanduser()).resolve()}"
    except (OSError, RuntimeError, ValueError) as error:
        raise UnusableError(f"{text!r} is no path: {error}") from None


def is_inside(uri: str, root: str) -> bool:
    """Returns True if the canonical URI `uri` is `root`, or lies below `root`."""
    return uri == root or uri.startswith(root.rstrip("/") + "/")


class Store:
    """The local disk and S3.

    S3 is read with boto3 and not with `pyarrow.fs`, whose `get_file_info` returns a whole listing as one list: an audit
    never holds all names in memory. `pyarrow.fs` also refuses names with an empty part (tried with pyarrow 26).

    Args:
        endpoint_url: Endpoint of S3; None takes `AWS_ENDPOINT_URL`, or AWS itself.
    """

    def __init__(self, endpoint_url: str | None = None) -> None:
        self._endpoint_url = endpoint_url

    @cached_property
    def _s3(self) -> Any:
        import boto3  # the import is slow, and only S3 needs boto3

        with _s3_errors("s3://"):
            return boto3.client("s3", endpoint_url=self._endpoint_url)

    def list(self, uri: str, *, every_key: bool = False) -> Iterator[Object]:
        """Yields the files or objects at or below a URI, in no particular order.

        Args:
            every_key: True yields keys on S3 with parts that are empty, `.` or `..`, and with control characters, too.
        """
        if uri.startswith("file://"):
            path = uri.removeprefix("file://")
            if Path(path).is_file():
                yield Object(uri, Path(path).stat().st_size)
            elif Path(path).is_dir():
                yield from _walk(path, frozenset())
            return
        bucket, key = _bucket_and_key(uri)
        with _s3_errors(uri):
            size = self._size(bucket, key) if key else None
            if size is not None:
                yield Object(uri, size)
                return
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key and key + "/")
            for found in (entry for page in pages for entry in page.get("Contents", ())):
                if _NO_UTF8.search(found["Key"]):
                    continue
                listed = Object(f"s3://{bucket}/{found['Key']}", found["Size"])
                if (every_key and not found["Key"].endswith("/")) or _is_plain(listed):
                    yield listed

    def _size(self, bucket: str, key: str) -> int | None:
        """Returns the size of one object; None if there is no object, or if the credentials may not see the size."""
        from botocore.exceptions import ClientError

        try:
            return self._s3.head_object(Bucket=bucket, Key=key)["ContentLength"]
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (403, 404):
                return None
            raise

    def read(self, uri: str) -> bytes | None:
        """Returns all bytes of a small object; None if there is no object."""
        if uri.startswith("file://"):
            path = Path(uri.removeprefix("file://"))
            return path.read_bytes() if path.is_file() else None
        bucket, key = _bucket_and_key(uri)
        with _s3_errors(uri):
            try:
                return self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            except self._s3.exceptions.NoSuchKey:
                return None

    def place(self, uri: str, path: Path) -> None:
        """Makes an object readable under a local path: a local file by a link, an object in S3 by a copy."""
        if uri.startswith("file://"):
            path.symlink_to(uri.removeprefix("file://"))
            return
        bucket, key = _bucket_and_key(uri)
        with _s3_errors(uri):
            self._s3.download_file(bucket, key, str(path))

    def place_footer(self, found: Object, path: Path) -> None:
        """Makes the footer of a Parquet file readable under a local path; a copy from S3 has only the file's end."""
        if found.uri.startswith("file://"):
            self.place(found.uri, path)
            return
        bucket, key = _bucket_and_key(found.uri)
        length = min(_TAIL_BYTES, found.size)
        with _s3_errors(found.uri), path.open("wb") as file:
            tail = self._range(bucket, key, found.size - length, length)
            needed = int.from_bytes(tail[-8:-4], "little") + 8
            if tail.endswith(b"PAR1") and length < needed <= found.size:
                tail = self._range(bucket, key, found.size - needed, needed)
            file.seek(found.size - len(tail))
            file.write(tail)

    def read_part(self, uri: str, start: int, length: int) -> bytes:
        """Returns bytes of an object; fewer bytes at its end."""
        if uri.startswith("file://"):
            with Path(uri.removeprefix("file://")).open("rb") as file:
                file.seek(start)
                return file.read(length)
        with _s3_errors(uri):
            return self._range(*_bucket_and_key(uri), start, length)

    def _range(self, bucket: str, key: str, start: int, length: int) -> bytes:
        if not length:
            return b""
        wanted = f"bytes={start}-{start + length - 1}"
        return self._s3.get_object(Bucket=bucket, Key=key, Range=wanted)["Body"].read()


def _bucket_and_key(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


@contextmanager
def _s3_errors(uri: str) -> Iterator[None]:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError, ValueError) as error:
        raise UnusableError(f"{uri} cannot be read: {' '.join(str(error).split())[:200]}") from None


def _is_plain(found: Object) -> bool:
    """Returns False for a key that jobs under the first rules skip: it also has no empty part."""
    return found.is_nameable and "" not in _bucket_and_key(found.uri)[1].split("/")


def _walk(folder: str, above: frozenset[tuple[int, int]]) -> Iterator[Object]:
    """Yields the regular files below a folder; links are followed, except links to a folder above themselves."""
    status = os.stat(folder)  # noqa: PTH116
    place = (status.st_dev, status.st_ino)
    if place in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            path = f"{folder.rstrip('/')}/{entry.name}"
            try:
                entry.name.encode()
                mode = entry.stat().st_mode
            except (UnicodeEncodeError, FileNotFoundError):
                continue  # the name is not UTF-8, or the link leads to nothing
            if stat.S_ISDIR(mode):
                yield from _walk(path, above | {place})
            elif stat.S_ISREG(mode):
                yield Object(f"file://{path}", entry.stat().st_size)
