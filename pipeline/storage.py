"""Objects by URI, the same on S3, Google Cloud, Azure and the local disk: list, read, put under conditions, delete.

URIs are canonical: see `pipeline.uris`. S3 is tested against a real server. gs and az are untested and go by the
client's own defaults; `pipeline.preflight` refuses them as an output where they do not keep the conditions.

Every request fails as a member of the tree in `pipeline.store_errors`. What may pass by itself is asked again for up to
`StoreConfig.retry_s`, and a conditional write whose answer was lost is known again when it meets itself.
"""

import io
import logging
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

import obstore
from obstore.exceptions import InvalidPathError
from obstore.store import ObjectStore

from pipeline import local_disk
from pipeline.block_reader import BlockReader
from pipeline.errors import ConfigError
from pipeline.store_clients import Account, check_endpoint, list_odd_keys, open_client
from pipeline.store_errors import ChangedError, DeniedError, ExistsError, NotFoundError, StoreError, TransientError
from pipeline.store_requests import retrying, translated
from pipeline.uris import is_local, local_path

logger = logging.getLogger(__name__)

_BUFFER_BYTES = 256 * 1024
# What one request may carry within `timeout_s`: longer reads are split, longer uploads get a multiple of the time.
_TIMEOUT_BYTES = 32 * 2**20


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
            check_endpoint(self.endpoint_url)
        if self.retry_s < 0 or self.timeout_s <= 0:
            raise ConfigError("the store's retry time must not be negative, and its timeout must be positive")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object. The ETag is opaque and complete, with the quotes a store puts around it."""

    uri: str
    size: int
    etag: str


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
        meta = retrying(uri, config.retry_s, lambda: obstore.head(client, key))
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
        found = retrying(uri, config.retry_s, request)
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
    return bytes(retrying(uri, config.retry_s, lambda: _fetch(uri, config, start, length, etag)))


def open_reader(uri: str, config: StoreConfig, *, size: int, etag: str | None, read_ahead: bool = True) -> BinaryIO:
    """A seekable file over one version of an object, for tarfile, gzip and `pyarrow.PythonFile`; close it.

    Raises:
        NotFoundError, ChangedError: here on the local disk, at a read elsewhere.
        StoreError: reads raise it too, unchanged by the readers above.
    """
    if is_local(uri):
        return io.BufferedReader(local_disk.CheckedFile(_path(uri), etag), _BUFFER_BYTES)

    def fetch_once(start: int, length: int) -> memoryview:
        return _fetch(uri, config, start, length, etag)

    def fetch(start: int, length: int) -> memoryview:
        return retrying(uri, config.retry_s, lambda: fetch_once(start, length))

    return io.BufferedReader(BlockReader(size, fetch, fetch_once if read_ahead else None), _BUFFER_BYTES)


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
            with translated(uri):
                return obstore.put(client, key, data, mode=mode, use_multipart=False)["e_tag"] or ""
        except (ExistsError, ChangedError):
            there = head(uri, config) if attempts > 1 else None
            if there is None or there.size != len(data) or read(uri, config, there.etag) != data:
                raise
            return there.etag

    return retrying(uri, config.retry_s, request)


def delete(uri: str, config: StoreConfig) -> None:
    """Removes an object; nothing happens if there is none."""
    if is_local(uri):
        return local_disk.delete(_path(uri))
    client, key = _open(uri, config)
    with suppress(NotFoundError):
        retrying(uri, config.retry_s, lambda: obstore.delete(client, key))
    return None


def sweep_temporaries(root: str) -> int:
    """Removes what writers that were killed over an hour ago left on a local disk; returns how many files."""
    return local_disk.sweep(_path(root)) if is_local(root) else 0


# ---- Requests


def _path(uri: str) -> str:
    return str(local_path(uri))


def _account(config: StoreConfig) -> Account:
    return Account(profile=config.profile, endpoint_url=config.endpoint_url, anonymous=config.anonymous)


def _open(uri: str, config: StoreConfig, *, upload_bytes: int = 0, retries: bool = False) -> tuple[ObjectStore, str]:
    """The client of a URI's bucket, and the key."""
    timeout_s = config.timeout_s * (1 + upload_bytes // _TIMEOUT_BYTES)
    return open_client(uri, _account(config), timeout_s=timeout_s, retry_s=config.retry_s if retries else None)


@contextmanager
def _gone_or_changed(uri: str, config: StoreConfig) -> Iterator[None]:
    """Tells an object that is gone from one that changed: under If-Match, some stores answer 412 to both."""
    try:
        yield
    except ChangedError:
        if head(uri, config) is None:
            raise NotFoundError(f"{uri}: not found") from None
        raise


def _whole(uri: str, data: obstore.Bytes, length: int) -> memoryview:
    if len(data) != length:
        raise TransientError(f"{uri}: only {len(data)} of {length} bytes came")
    return memoryview(data)


def _fetch(uri: str, config: StoreConfig, start: int, length: int, etag: str | None) -> memoryview:
    """A range, by one attempt."""
    client, key = _open(uri, config)
    with _gone_or_changed(uri, config), translated(uri):
        options: Any = {"range": (start, start + length)} | ({"if_match": etag} if etag else {})
        answer = obstore.get(client, key, options=options)
        if start + length > answer.meta["size"]:
            raise StoreError(f"{uri}: ends before byte {start + length}")
        return _whole(uri, answer.bytes(), length)


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
    found = retrying(uri, config.retry_s, request)
    if found is None:
        found = list_odd_keys(uri, _account(config), skip)
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
