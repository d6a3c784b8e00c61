"""Objects by URI, the same on S3, Google Cloud, Azure and the local disk: list, read, put under conditions, delete.

URIs are canonical: see `pipeline.store.uris`. S3 is tested against a real server. gs and az are untested and go by the
client's own defaults; `pipeline.store.preflight` refuses them as an output where they do not keep the conditions.

Every request fails as a member of the tree in `pipeline.store.errors`. What may pass by itself is asked again until
`StoreConfig.deadline_s`, and a conditional write whose answer was lost is known again when it meets itself. The local
disk is asked once. docs/operate/store-faults.md lists the faults and what becomes of each.
"""

import io
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, BinaryIO

import obstore
from obstore.store import ObjectStore

from pipeline.store import local_disk
from pipeline.store.block_reader import BLOCK_BYTES, BlockReader
from pipeline.store.clients import open_client
from pipeline.store.config import Account, StoreConfig
from pipeline.store.errors import ChangedError, DeniedError, ExistsError, NotFoundError, StoreError, TransientError
from pipeline.store.meter import count_fetch
from pipeline.store.object_info import ObjectInfo
from pipeline.store.pages import open_pages
from pipeline.store.parallel_listing import LISTING_THREADS, list_keys
from pipeline.store.placeholders import UNADDRESSABLE
from pipeline.store.retry import retrying, translated
from pipeline.store.uris import is_local, split_uri

logger = logging.getLogger(__name__)

# Without the second, AWS answers to a missing object as it does to one that may not be read.
_TO_READ = "s3:GetObject, or s3:ListBucket if there is no such object"
_TO_WRITE = "s3:PutObject"
_TO_DELETE = "s3:DeleteObject"

_BUFFER_BYTES = 256 * 1024
# An upload has `timeout_s` for each of these, since it cannot be split.
_UPLOAD_BYTES = 32 * 2**20


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
    skipped, first_skipped = 0, ""

    def skip(name: str) -> None:
        nonlocal skipped, first_skipped
        first_skipped = first_skipped or name
        skipped += 1
        if on_skipped is not None:
            on_skipped(name)

    if is_local(uri):
        for path, size, etag, modified_s in local_disk.walk(_path(uri), skip):
            yield ObjectInfo(f"file://{path}", size, etag, modified_s)
    else:
        yield from _list_remote(uri, config, skip)
    if skipped:
        logger.warning("store.names_skipped uri=%s names=%d first=%r", uri, skipped, first_skipped)


def head(uri: str, config: StoreConfig) -> ObjectInfo | None:
    """Size, ETag and last-modified time of one object; None if there is none."""
    if is_local(uri):
        status = local_disk.file_status(_path(uri))
        if status is None:
            return None
        return ObjectInfo(uri, status.st_size, local_disk.etag_of(status), status.st_mtime)
    client, key = _open(uri, config)
    if not key:
        return None

    def request() -> Any:
        with translated(uri, _TO_READ):
            return obstore.head(client, key)

    try:
        meta = retrying(uri, config.deadline_s, request)
    except NotFoundError:
        return None
    return ObjectInfo(uri, meta["size"], meta["e_tag"] or "", meta["last_modified"].timestamp())


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
        started = time.perf_counter()
        with _gone_or_changed(uri, config), translated(uri, _TO_READ):
            answer = obstore.get(client, key, options={"if_match": etag} if etag else None)
            answered, size = time.perf_counter(), answer.meta["size"]
            if size > BLOCK_BYTES:
                return ObjectInfo(uri, size, answer.meta["e_tag"] or "")
            data = bytes(_whole(uri, answer.bytes(), size))
        count_fetch(started, answered, size)
        return data

    found = retrying(uri, config.deadline_s, request)
    if isinstance(found, bytes):
        return found
    with open_reader(uri, config, size=found.size, etag=found.etag) as reader:
        return reader.read()


def read_at_once(uri: str, etag: str) -> bytes | None:
    """The whole object, if that takes no waiting; None for most files on a disk, and for all in an object store.

    Raises:
        NotFoundError: there is none.
        ChangedError: it does not have this ETag.
    """
    return local_disk.read_at_once(_path(uri), etag) if is_local(uri) else None


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
    # Opened before the deadline begins to run: the first client takes boto3 a while.
    opened = _open(uri, config)
    return bytes(retrying(uri, config.deadline_s, lambda: _fetch(uri, config, opened, start, length, etag)))


def open_reader(uri: str, config: StoreConfig, *, size: int, etag: str | None, read_ahead: bool = True) -> BinaryIO:
    """A seekable file over one version of an object, for tarfile, gzip and `pyarrow.PythonFile`; close it.

    Raises:
        NotFoundError, ChangedError: here on the local disk, at a read elsewhere.
        StoreError: reads raise it too, unchanged by the readers above.
    """
    if is_local(uri):
        return io.BufferedReader(local_disk.CheckedFile(_path(uri), etag), _BUFFER_BYTES)

    opened = _open(uri, config)

    def fetch_once(start: int, length: int) -> memoryview:
        return _fetch(uri, config, opened, start, length, etag)

    def fetch(start: int, length: int) -> memoryview:
        return retrying(uri, config.deadline_s, lambda: fetch_once(start, length))

    return io.BufferedReader(BlockReader(size, fetch, fetch_once if read_ahead else None), _BUFFER_BYTES)


def put(
    uri: str, data: bytes | memoryview, config: StoreConfig, *, if_absent: bool = False, if_match: str | None = None
) -> str:
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
            with translated(uri, _TO_WRITE):
                return obstore.put(client, key, data, mode=mode, use_multipart=False)["e_tag"] or ""
        except (ExistsError, ChangedError):
            etag = _etag_of_same(uri, data, config) if attempts > 1 else None
            if etag is None:
                raise
            return etag

    return retrying(uri, config.deadline_s, request)


def delete(uri: str, config: StoreConfig) -> None:
    """Removes an object; nothing happens if there is none."""
    if is_local(uri):
        return local_disk.delete(_path(uri))
    client, key = _open(uri, config)

    def request() -> None:
        with translated(uri, _TO_DELETE):
            obstore.delete(client, key)

    with suppress(NotFoundError):
        retrying(uri, config.deadline_s, request)
    return None


def sweep_temporaries(root: str) -> int:
    """Removes what writers that were killed over an hour ago left on a local disk; returns how many files."""
    return local_disk.sweep(_path(root)) if is_local(root) else 0


# ---- Requests


def _path(uri: str) -> str:
    return uri.removeprefix("file://")


def _account(config: StoreConfig) -> Account:
    return Account(profile=config.profile, endpoint_url=config.endpoint_url, anonymous=config.anonymous)


def _open(uri: str, config: StoreConfig, *, upload_bytes: int = 0) -> tuple[ObjectStore, str]:
    """The client of a URI's bucket, and the key."""
    timeout_s = config.timeout_s * (1 + upload_bytes // _UPLOAD_BYTES)
    return open_client(uri, _account(config), timeout_s=timeout_s)


def _once(config: StoreConfig) -> StoreConfig:
    """For requests inside an attempt, whose patience is that of the whole."""
    return replace(config, deadline_s=0.0)


@contextmanager
def _gone_or_changed(uri: str, config: StoreConfig) -> Iterator[None]:
    """Tells an object that is gone from one that changed: under If-Match, some stores answer 412 to both."""
    try:
        yield
    except ChangedError:
        if head(uri, _once(config)) is None:
            raise NotFoundError(f"{uri}: not found") from None
        raise


def _etag_of_same(uri: str, data: bytes | memoryview, config: StoreConfig) -> str | None:
    """The ETag of the object under a name, if it has these bytes."""
    there = head(uri, _once(config))
    if there is None or there.size != len(data):
        return None
    try:
        return there.etag if read(uri, _once(config), there.etag) == data else None
    except (NotFoundError, ChangedError):
        # Another writer came between the two requests.
        return None


def _whole(uri: str, data: obstore.Bytes, length: int) -> memoryview:
    if len(data) != length:
        raise TransientError(f"{uri}: only {len(data)} of {length} bytes came")
    return memoryview(data)


def _fetch(
    uri: str, config: StoreConfig, opened: tuple[ObjectStore, str], start: int, length: int, etag: str | None
) -> memoryview:
    """A range, by one attempt."""
    client, key = opened
    started = time.perf_counter()
    with _gone_or_changed(uri, config), translated(uri, _TO_READ):
        options: Any = {"range": (start, start + length)} | ({"if_match": etag} if etag else {})
        answer = obstore.get(client, key, options=options)
        answered = time.perf_counter()
        if start + length > answer.meta["size"]:
            raise StoreError(f"{uri}: ends before byte {start + length}")
        data = _whole(uri, answer.bytes(), length)
    count_fetch(started, answered, length)
    return data


def _list_remote(uri: str, config: StoreConfig, skip: Callable[[str], None]) -> Iterator[ObjectInfo]:
    itself = None
    # Who may list, but not read what the prefix's own name would be, is answered by the listing.
    with suppress(DeniedError):
        itself = head(uri, config)
    if itself is not None:
        yield itself
        return
    scheme, bucket, prefix = split_uri(uri)
    pages = open_pages(uri, _account(config), timeout_s=config.timeout_s, deadline_s=config.deadline_s)
    # Only S3 is listed by folders.
    threads = LISTING_THREADS if scheme == "s3" else 1
    for key, size, etag, modified_s in list_keys(
        pages, prefix and prefix + "/", uri=uri, deadline_s=config.deadline_s, threads=threads
    ):
        if size == UNADDRESSABLE:
            skip(key)
        else:
            yield ObjectInfo(f"{scheme}://{bucket}/{key}", size, etag, modified_s)
