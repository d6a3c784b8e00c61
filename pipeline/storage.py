"""Objects by URI, the same on S3, Google Cloud, Azure and the local disk: list, read, put under conditions, delete.

A URI is `scheme://` and a raw name, nothing percent-encoded: `file:///abs/path`, `s3://bucket/key`, `gs://bucket/key`,
`az://container/key`. S3 is tested against a real server. gs and az are untested and go by the client's own defaults;
`preflight` refuses them as an output where they do not keep the conditions.

Every request fails as a member of the tree in `pipeline.store_errors`. What may pass by itself is asked again for up to
`StoreConfig.retry_s`, and a conditional write whose answer was lost is known again when it meets itself.
"""

import functools
import io
import logging
import os
import random
import re
import secrets
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar
from urllib.parse import urlsplit

import boto3
import obstore
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConfigNotFound, ConfigParseError, ProfileNotFound
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.exceptions import BaseError, InvalidPathError
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from pipeline import local_disk
from pipeline.errors import ConfigError, OutputError
from pipeline.store_errors import (
    ChangedError,
    DeniedError,
    ExistsError,
    NotFoundError,
    StoreError,
    TransientError,
    from_answer,
    from_client_error,
    redact,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MIB = 2**20
_BLOCK_BYTES = 8 * _MIB
_BUFFER_BYTES = 256 * 1024
# What one request may carry within `timeout_s`: longer reads are split, longer uploads get a multiple of the time.
_TIMEOUT_BYTES = 32 * _MIB
_MAX_PAUSE_S = 10.0
_PREFLIGHT_RETRY_S = 10.0
_NO_SUCH_ETAG = '"00000000000000000000000000000000"'

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_REMOTE = ("s3", "gs", "az")


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """Account, endpoint and patience; no secrets, so it may be pickled and logged.

    Credentials, region and endpoint come from boto3's chain: environment, profile, web identity, container, instance.

    Attributes:
        profile: AWS profile; None goes by the environment.
        endpoint_url: S3 endpoint; None takes boto3's (AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the profile, AWS itself).
        anonymous: send unsigned requests, for public buckets.
        retry_s: how long a request is asked again after a transient failure.
        timeout_s: how long one request may take, for up to 32 MiB.
    """

    profile: str | None = None
    endpoint_url: str | None = None
    anonymous: bool = False
    retry_s: float = 60.0
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if self.endpoint_url is not None:
            _check_endpoint(self.endpoint_url)
        if self.retry_s < 0 or self.timeout_s <= 0:
            raise ConfigError("the store's retry time must not be negative, and its timeout must be positive")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object. The ETag is opaque and complete, with the quotes a store puts around it."""

    uri: str
    size: int
    etag: str


# ---- URIs


def canonical_uri(text: str) -> str:
    """The one URI of what a user named; a canonical URI is returned as it is.

    Local paths become absolute, with links resolved as far as they exist. Object keys are kept as they are, `//` inside
    included, but for slashes at either end.

    Raises:
        ConfigError: the text is empty, no UTF-8, of an unknown scheme, or its bucket's name is none.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{text!r} is not UTF-8; rename it") from None
    match = _SCHEME.fullmatch(text)
    if match is None:
        return _canonical_path(text, expand=True)
    scheme, rest = match[1].lower(), match[2]
    if scheme == "file" and rest.startswith("/"):
        return _canonical_path(rest, expand=False)
    if scheme not in _REMOTE:
        raise ConfigError(f"{text!r}: give a path, or one of file:///path, s3://, gs://, az://")
    bucket, _, key = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        # Not repeated: what stands before an @ may be a password.
        raise ConfigError(f"a {scheme}:// URI must begin with the name of a bucket, as in {scheme}://bucket/folder")
    return f"{scheme}://{bucket}/{key.strip('/')}".rstrip("/")


def _canonical_path(text: str, *, expand: bool) -> str:
    if not text:
        raise ConfigError("an empty path; give a path or a URI")
    try:
        path = Path(text).expanduser() if expand else Path(text)
        return f"file://{path.resolve()}"
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{text!r} is no path: {error}") from None


def is_local(uri: str) -> bool:
    """True if the URI is of this machine's disk."""
    return uri.startswith("file://")


def join_uri(root: str, *parts: str) -> str:
    """The URI of a name below another."""
    return _folder(root) + "/".join(part.strip("/") for part in parts)


def is_inside(uri: str, root: str) -> bool:
    """True if one canonical URI is the other, or lies below it."""
    return uri == root or uri.startswith(_folder(root))


def name_of(uri: str) -> str:
    """The last part of a URI: a file's name, or the bucket's where there is no more."""
    return uri.rstrip("/").rpartition("/")[2]


def _folder(uri: str) -> str:
    return uri if uri.endswith("/") else uri + "/"


def _path(uri: str) -> str:
    return uri.removeprefix("file://")


def _split(uri: str) -> tuple[str, str, str]:
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme not in _REMOTE:
        raise StoreError(f"{uri}: not a canonical URI")
    return scheme, bucket, key


def _is_addressable(key: str) -> bool:
    """False for a key that the client would refuse, or change into another."""
    bad_parts = {"", ".", ".."}.intersection(key.split("/")) if key else ()
    return not bad_parts and not any(ord(character) < 32 or ord(character) == 127 for character in key)


# ---- Operations


def list_objects(
    uri: str, config: StoreConfig, *, on_skipped: Callable[[str], None] | None = None
) -> Iterator[ObjectInfo]:
    """Every object below a folder or prefix, or the one object that the URI is; nothing if there is none.

    The order is that of the URIs' code points on every store. Placeholders of folders that hold something are left out.

    Args:
        on_skipped: told each name that cannot be read (no UTF-8, dangling links, keys with empty parts or control
            characters); their number is logged too.

    Raises:
        StoreError: also while iterating. A bucket that does not exist is a `NotFoundError`.
    """
    skipped: list[str] = []

    def skip(name: str) -> None:
        skipped.append(name)
        if on_skipped is not None:
            on_skipped(name)

    if is_local(uri):
        for path, status in local_disk.walk(_path(uri), skip):
            yield ObjectInfo(f"file://{path}", status.st_size, local_disk.etag_of(status))
    else:
        yield from _list_remote(uri, config, skip)
    if skipped:
        logger.warning("store.names_skipped uri=%s names=%d first=%r", uri, len(skipped), skipped[0])


def head(uri: str, config: StoreConfig) -> ObjectInfo | None:
    """Size and ETag of one object; None if there is none."""
    if is_local(uri):
        status = local_disk.file_status(_path(uri))
        return None if status is None else ObjectInfo(uri, status.st_size, local_disk.etag_of(status))
    client, key = _open(uri, config)
    if not key:
        return None
    try:
        meta = _retrying(uri, config, lambda: obstore.head(client, key))
    except NotFoundError:
        return None
    return ObjectInfo(uri, meta["size"], meta["e_tag"] or "")


def read(uri: str, config: StoreConfig, etag: str | None = None) -> bytes:
    """The whole object.

    Raises:
        NotFoundError: there is none.
        ChangedError: it does not have this ETag.
    """
    if is_local(uri):
        with local_disk.CheckedFile(_path(uri), etag) as file:
            return file.readall()
    client, key = _open(uri, config)

    def request() -> bytes | ObjectInfo:
        answer = obstore.get(client, key, options={"if_match": etag} if etag else None)
        size = answer.meta["size"]
        if size > _TIMEOUT_BYTES:
            return ObjectInfo(uri, size, answer.meta["e_tag"] or "")
        return bytes(_whole(uri, answer.bytes(), size))

    with _gone_or_changed(uri, config):
        found = _retrying(uri, config, request)
    if isinstance(found, bytes):
        return found
    with open_reader(uri, config, size=found.size, etag=found.etag) as reader:
        return reader.read()


def read_range(uri: str, config: StoreConfig, start: int, length: int, etag: str | None = None) -> bytes:
    """Exactly `length` bytes from `start` on.

    Raises:
        NotFoundError: there is no such object.
        ChangedError: it does not have this ETag.
        StoreError: it ends before.
    """
    if length == 0:
        return b""
    if is_local(uri):
        with io.BufferedReader(local_disk.CheckedFile(_path(uri), etag)) as file:
            file.seek(start)
            data = file.read(length)
        if len(data) < length:
            raise StoreError(f"{uri}: ends before byte {start + length}")
        return data
    return bytes(_retrying(uri, config, lambda: _fetch(uri, config, start, length, etag)))


def open_reader(uri: str, config: StoreConfig, *, size: int, etag: str | None, read_ahead: bool = True) -> BinaryIO:
    """A seekable file over one version of an object, for tarfile, gzip and `pyarrow.PythonFile`; close it.

    Raises:
        NotFoundError, ChangedError: here on the local disk, at a read elsewhere.
        StoreError: reads raise it too, unchanged by the readers above.
    """
    if is_local(uri):
        return io.BufferedReader(local_disk.CheckedFile(_path(uri), etag), _BUFFER_BYTES)
    return io.BufferedReader(_BlockReader(uri, config, size, etag, read_ahead), _BUFFER_BYTES)


def put(uri: str, data: bytes, config: StoreConfig, *, if_absent: bool = False, if_match: str | None = None) -> str:
    """Writes a whole object by one request and returns its ETag.

    A conditional write whose first answer was lost finds its own bytes under the name when it is asked again; that
    counts as written.

    Args:
        if_absent: only if there is nothing under that name.
        if_match: only over the object that has this ETag.

    Raises:
        ExistsError: `if_absent`, and the name is taken.
        ChangedError: another ETag than `if_match`, or nothing there.
    """
    if is_local(uri):
        return local_disk.put(_path(uri), data, if_absent=if_absent, if_match=if_match)
    client, key = _open(uri, config, upload_bytes=len(data))
    mode: Any = "create" if if_absent else {"e_tag": if_match} if if_match else "overwrite"
    attempts = 0

    def request() -> str:
        nonlocal attempts
        attempts += 1
        try:
            with _translated(uri):
                return obstore.put(client, key, data, mode=mode, use_multipart=False)["e_tag"] or ""
        except (ExistsError, ChangedError):
            there = head(uri, config) if attempts > 1 else None
            if there is None or there.size != len(data) or read(uri, config, there.etag) != data:
                raise
            return there.etag

    return _retrying(uri, config, request)


def delete(uri: str, config: StoreConfig) -> None:
    """Removes an object; nothing happens if there is none."""
    if is_local(uri):
        return local_disk.delete(_path(uri))
    client, key = _open(uri, config)
    with suppress(NotFoundError):
        _retrying(uri, config, lambda: obstore.delete(client, key))
    return None


def sweep_temporaries(root: str) -> int:
    """Removes what writers that were killed over an hour ago left on a local disk; returns how many files."""
    return local_disk.sweep(_path(root)) if is_local(root) else 0


def preflight(uri: str, config: StoreConfig) -> None:
    """Proves with one small object that an output can be written, and that its store keeps the conditions.

    Raises:
        OutputError: it cannot, or does not; the message says which and what to do.
    """
    config = replace(config, retry_s=min(config.retry_s, _PREFLIGHT_RETRY_S))
    probe = join_uri(uri, f".preflight-{secrets.token_hex(8)}")
    try:
        _probe(probe, config)
    except NotFoundError as error:
        raise OutputError(f"the output cannot be written: {error}; create the bucket, or check its name") from None
    except DeniedError as error:
        raise OutputError(
            f"the output may not be written: {error}; check the credentials, the profile, and that they allow to "
            "read, write and delete there"
        ) from None
    except TransientError as error:
        raise OutputError(f"the output's store does not answer: {error}; check the endpoint and the network") from None
    except StoreError as error:
        raise OutputError(f"the output cannot be written: {error}") from None


def _probe(probe: str, config: StoreConfig) -> None:
    first, second, third = (f"preflight {number} {secrets.token_hex(8)}\n".encode() for number in range(3))
    etag = put(probe, first, config, if_absent=True)
    try:
        if not _refused(lambda: put(probe, second, config, if_absent=True), ExistsError):
            raise _ignores("If-None-Match", probe, "two writers of one file would both believe that theirs is there")
        if not _refused(lambda: put(probe, second, config, if_match=_NO_SUCH_ETAG), ChangedError):
            raise _ignores("If-Match", probe, "a rewrite could undo another's")
        try:
            newer = put(probe, third, config, if_match=etag)
        except ChangedError:
            raise OutputError(
                f"the store of {probe} refuses a rewrite under the ETag it gave; use another store"
            ) from None
        if not _refused(lambda: read(probe, config, etag), ChangedError):
            raise _ignores("If-Match of reads", probe, "a file could change while it is read")
        if read(probe, config, newer) != third:
            raise OutputError(f"the store of {probe} does not give back what was written; use another store")
    except BaseException:
        with suppress(StoreError):
            delete(probe, config)
        raise
    delete(probe, config)


def _refused(request: Callable[[], object], refusal: type[StoreError]) -> bool:
    try:
        request()
    except refusal:
        return True
    return False


def _ignores(header: str, probe: str, consequence: str) -> OutputError:
    return OutputError(f"the store of {probe} ignores {header}, so that {consequence}; use another store or gateway")


# ---- Requests


def _open(uri: str, config: StoreConfig, *, upload_bytes: int = 0, retries: bool = False) -> tuple[ObjectStore, str]:
    """The client of a URI's bucket, and the key."""
    scheme, bucket, key = _split(uri)
    if not _is_addressable(key):
        raise StoreError(
            f"{uri!r}: a key with empty parts, '.' or '..' parts or control characters cannot be addressed"
        )
    if _client_pid not in (0, os.getpid()):
        # The client's threads did not come along, so that its first request would wait for ever.
        raise StoreError(f"{uri}: object stores cannot be used in a forked process; start it by spawn")
    timeout_s = config.timeout_s * (1 + upload_bytes // _TIMEOUT_BYTES)
    # Making one takes boto3 a while, and it is not made for threads.
    with _clients_lock:
        return _client(scheme, bucket, config, timeout_s, retries), key


@contextmanager
def _gone_or_changed(uri: str, config: StoreConfig) -> Iterator[None]:
    """Tells an object that is gone from one that changed: under If-Match, some stores answer 412 to both."""
    try:
        yield
    except ChangedError:
        if head(uri, config) is None:
            raise NotFoundError(f"{uri}: not found") from None
        raise


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """Turns the client's errors into ours; `from None`, since theirs hold whole answers."""
    try:
        yield
    except (BaseError, OSError, ValueError, NotImplementedError) as error:
        raise from_client_error(uri, error) from None


def _retrying(uri: str, config: StoreConfig, request: Callable[[], T]) -> T:
    """What `request` returns, asked again after growing pauses while it fails transiently."""
    started, attempt = time.monotonic(), 1
    while True:
        try:
            with _translated(uri):
                return request()
        except TransientError as error:
            spent_s = time.monotonic() - started
            pause_s = min(_MAX_PAUSE_S, 0.1 * 2**attempt) * random.uniform(0.5, 1.0)
            if spent_s + pause_s > config.retry_s:
                raise TransientError(f"{error} (gave up after {attempt} attempts in {spent_s:.0f} s)") from None
            logger.info("store.retried attempt=%d pause_s=%.1f error=%s", attempt, pause_s, error)
            time.sleep(pause_s)
            attempt += 1


def _whole(uri: str, data: obstore.Bytes, length: int) -> memoryview:
    if len(data) != length:
        raise TransientError(f"{uri}: only {len(data)} of {length} bytes came")
    return memoryview(data)


def _fetch(uri: str, config: StoreConfig, start: int, length: int, etag: str | None) -> memoryview:
    """A range, by one attempt."""
    client, key = _open(uri, config)
    with _gone_or_changed(uri, config), _translated(uri):
        options: Any = {"range": (start, start + length)} | ({"if_match": etag} if etag else {})
        answer = obstore.get(client, key, options=options)
        if start + length > answer.meta["size"]:
            raise StoreError(f"{uri}: ends before byte {start + length}")
        return _whole(uri, answer.bytes(), length)


class _BlockReader(io.RawIOBase):
    """Reads of one object in blocks; while reading on, the next block is fetched behind the current one."""

    def __init__(self, uri: str, config: StoreConfig, size: int, etag: str | None, read_ahead: bool):
        self._uri, self._config, self._size, self._etag, self._read_ahead = uri, config, size, etag, read_ahead
        self._position = 0
        self._index, self._block = -1, memoryview(b"")
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: tuple[int, Future[memoryview]] | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if position < 0:
            raise ValueError(f"seek to {position}")
        self._position = position
        return position

    def readinto(self, buffer: Any) -> int:
        part = self._next_part(len(buffer))
        buffer[: len(part)] = part
        return len(part)

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self._next_part(_BLOCK_BYTES), b""))

    def _next_part(self, max_bytes: int) -> memoryview:
        if self._position >= self._size:
            return memoryview(b"")
        index, offset = divmod(self._position, _BLOCK_BYTES)
        if index != self._index:
            self._turn_to(index)
        part = self._block[offset : offset + max_bytes]
        self._position += len(part)
        return part

    def _turn_to(self, index: int) -> None:
        reads_on = index == self._index + 1
        self._block, self._index = self._take(index), index
        if self._read_ahead and reads_on and (index + 1) * _BLOCK_BYTES < self._size:
            self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
            self._ahead = index + 1, self._pool.submit(self._fetch_block, index + 1)

    def _take(self, index: int) -> memoryview:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == index:
            # Reading ahead tries once; if that failed, this asks again, with patience, and has the error if it lasts.
            with suppress(StoreError):
                return ahead[1].result()
        return _retrying(self._uri, self._config, lambda: self._fetch_block(index))

    def _fetch_block(self, index: int) -> memoryview:
        start = index * _BLOCK_BYTES
        return _fetch(self._uri, self._config, start, min(_BLOCK_BYTES, self._size - start), self._etag)

    def close(self) -> None:
        if not self.closed and self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._ahead, self._block = None, memoryview(b"")
        super().close()


def _list_remote(uri: str, config: StoreConfig, skip: Callable[[str], None]) -> Iterator[ObjectInfo]:
    client, prefix = _open(uri, config, retries=True)
    itself = None
    # Who may list, but not read what the prefix's own name would be, is answered by the listing.
    with suppress(DeniedError):
        itself = head(uri, config)
    if itself is not None:
        yield itself
        return

    def request() -> list[tuple[str, int, str]] | None:
        try:
            pages = obstore.list(client, prefix or None, chunk_size=1000)
            return [(meta["path"], meta["size"], meta["e_tag"] or "") for page in pages for meta in page]
        except InvalidPathError:
            # One key that the client cannot represent, and its whole listing fails.
            if not uri.startswith("s3://"):
                raise
            return None

    # The client's own retries do not cover a page that breaks off.
    found = _retrying(uri, config, request)
    if found is None:
        found = _list_odd_keys(uri, config, skip)
    # Stores list in orders of their own, and a run must not depend on it.
    found.sort()
    keys = [key for key, _, _ in found]
    root = uri[: len(uri) - len(prefix)].rstrip("/")
    for key, size, etag in found:
        if size == 0:
            # Placeholders of folders arrive without the slash that they end with.
            below = bisect_left(keys, key + "/")
            if key == prefix or (below < len(keys) and keys[below].startswith(key + "/")):
                continue
        yield ObjectInfo(f"{root}/{key}", size, etag)


def _list_odd_keys(uri: str, config: StoreConfig, skip: Callable[[str], None]) -> list[tuple[str, int, str]]:
    """What boto3 lists under an S3 prefix, for buckets with keys that break the client's listing; slower by far."""
    _, bucket, prefix = _split(uri)
    client = _aws(config.profile, config.endpoint_url, config.anonymous).client
    found = []
    try:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix and prefix + "/")
        for item in (item for page in pages for item in page.get("Contents", ())):
            key = item["Key"]
            if not _is_addressable(key.removesuffix("/")):
                skip(key)
            elif not key.endswith("/"):
                found.append((key, item["Size"], item["ETag"]))
    except ClientError as error:
        answer = error.response.get("Error", {})
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        raise from_answer(uri, status, answer.get("Code", ""), answer.get("Message", "")) from None
    except BotoCoreError as error:
        raise TransientError(f"{uri}: {redact(str(error))}") from None
    finally:
        client.close()
    return found


# ---- Clients


class _Aws(NamedTuple):
    client: Any
    region: str
    credentials: Boto3CredentialProvider | None


_clients_lock = threading.Lock()
# The process that made the first client.
_client_pid = 0


def forget_clients() -> None:
    """Makes the next request build its client anew, after the environment's credentials or endpoint changed."""
    with _clients_lock:
        _client.cache_clear()
        _aws.cache_clear()


@functools.lru_cache(maxsize=64)
def _client(scheme: str, bucket: str, config: StoreConfig, timeout_s: float, retries: bool) -> ObjectStore:
    global _client_pid
    _client_pid = os.getpid()
    seconds = timedelta(seconds=timeout_s)
    client_options: Any = {"timeout": seconds, "connect_timeout": min(seconds, timedelta(seconds=10))}
    # Only listings leave retries to the client, which knows the page it is at; it retries no lost conditional write.
    retry_config: Any = {"max_retries": 100 if retries else 0, "retry_timeout": timedelta(seconds=config.retry_s)}
    if retries:
        retry_config["backoff"] = {"max_backoff": timedelta(seconds=min(_MAX_PAUSE_S, max(config.retry_s / 4, 0.1)))}
    options: Any = {"client_options": client_options, "retry_config": retry_config}
    if scheme != "s3":
        options |= {"skip_signature": True} if config.anonymous else {}
        return GCSStore(bucket, **options) if scheme == "gs" else AzureStore(bucket, **options)
    aws = _aws(config.profile, config.endpoint_url, config.anonymous)
    client_options["allow_http"] = aws.client.meta.endpoint_url.startswith("http://")
    options |= {"skip_signature": True} if aws.credentials is None else {"credential_provider": aws.credentials}
    options |= _s3_address(bucket, aws.client.meta.endpoint_url, aws.region)
    # One DELETE an object: the bulk request reports a refusal in a form of its own, and not every store knows it.
    return S3Store(bucket, disable_bulk_delete=True, **options)


def _s3_address(bucket: str, endpoint_url: str, region: str) -> dict[str, Any]:
    """Where the bucket is: in the host's name on AWS itself, in the path on every other endpoint.

    Both endpoint settings are given, since the client would take the more special one from the environment.
    """
    url, in_host = endpoint_url.rstrip("/"), False
    if urlsplit(url).hostname in ("s3.amazonaws.com", f"s3.{region}.amazonaws.com"):
        # A dot would be a second label, which the certificate does not cover.
        in_host = "." not in bucket
        url = f"https://{bucket + '.' if in_host else ''}s3.{region}.amazonaws.com"
    return {"endpoint": url, "aws_endpoint_url_s3": url, "region": region, "virtual_hosted_style_request": in_host}


@functools.lru_cache(maxsize=8)
def _aws(profile: str | None, endpoint_url: str | None, anonymous: bool) -> _Aws:
    """Endpoint, region and credentials by boto3's chain.

    Raises:
        ConfigError: the profile is unknown, or the AWS configuration cannot be used.
        DeniedError: there are no credentials.
    """
    try:
        session = boto3.Session(profile_name=profile)
        # boto3 itself reads only AWS_DEFAULT_REGION.
        region = os.environ.get("AWS_REGION") or session.region_name or "us-east-1"
        signing = Config(signature_version=UNSIGNED) if anonymous else None
        client = session.client("s3", region_name=region, endpoint_url=endpoint_url, config=signing)
        _check_endpoint(client.meta.endpoint_url)
        if anonymous:
            return _Aws(client, region, None)
        if session.get_credentials() is not None:
            # The client asks again five minutes before this ends, and boto3 renews what has less than ten left.
            return _Aws(client, region, Boto3CredentialProvider(session, ttl=timedelta(minutes=9)))
    except (ProfileNotFound, ConfigNotFound, ConfigParseError, ValueError) as error:
        raise ConfigError(f"the AWS configuration cannot be used: {redact(str(error))}") from None
    except BotoCoreError as error:
        raise DeniedError(f"no AWS credentials: {redact(str(error))}") from None
    raise DeniedError(
        "no AWS credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile, "
        "or ask for anonymous access to a public bucket"
    )


def _check_endpoint(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise ConfigError("the endpoint must be a URL such as https://host:port, without user and password")
