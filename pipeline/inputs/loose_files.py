"""Fetches loose images in several threads, and yields their records in order.

A small file that this machine holds in memory is read by the calling thread: handing the file to another thread would
take longer.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.chunks.failures import ErrorCode, Failure
from pipeline.inputs.record import BAD_URI, MAX_ENCODED_BYTES, Record
from pipeline.store.config import StoreConfig
from pipeline.store.errors import ChangedError, NotFoundError, StoreError, UnaddressableError
from pipeline.store.meter import waiting
from pipeline.store.store_path import StorePath


@dataclass(frozen=True, slots=True)
class Member:
    """One loose image of a group, as it was listed; `etag` is None if the image was gone when the plan was made."""

    uri: str
    key: str
    size: int
    etag: str | None
    true_label: str | None


_FETCH_THREADS = 16
# Largest numbers of files, and of bytes of these files, that are fetched ahead of the next record.
_WINDOW_FILES = 64
_WINDOW_BYTES = 128 * 2**20
# Largest file that the calling thread reads itself.
_AT_ONCE_BYTES = 2**18


def read_files(members: Sequence[Member], store: StoreConfig, *, give_up_failed: bool) -> Iterator[Record]:
    """Yields one record for each member, in the order of the members.

    Args:
        give_up_failed: True turns a member that the store cannot read into a failed record; False raises the error.

    Raises:
        StoreError: the store could not read a member that is neither gone nor changed, and `give_up_failed` is False.
    """
    with ThreadPoolExecutor(_FETCH_THREADS, thread_name_prefix="fetch") as pool:
        coming: deque[tuple[Member, Record | Future[Record]]] = deque()
        ahead_bytes = 0
        try:
            for member in members:
                while coming and (len(coming) >= _WINDOW_FILES or ahead_bytes + member.size > _WINDOW_BYTES):
                    oldest, fetched = coming.popleft()
                    ahead_bytes -= oldest.size
                    yield _record(fetched)
                at_once = _fetch_at_once(member, store)
                coming.append((member, at_once or pool.submit(_fetch, member, store, give_up_failed)))
                ahead_bytes += member.size
            while coming:
                yield _record(coming.popleft()[1])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _record(fetched: Record | Future[Record]) -> Record:
    if isinstance(fetched, Record):
        return fetched
    with waiting():
        return fetched.result()


def _fetch_at_once(member: Member, store: StoreConfig) -> Record | None:
    """Returns the record of a member that can be read without waiting; None if a thread must fetch the member."""
    if member.etag is None or member.size > _AT_ONCE_BYTES:
        return None
    try:
        data = StorePath(member.uri, store).read_at_once(member.etag)
    except StoreError:
        return None
    return None if data is None else Record(key=member.key, data=data, true_label=member.true_label)


def _fetch(member: Member, store: StoreConfig, give_up_failed: bool) -> Record:
    """Returns the record of one member; the message of a failure is the same on every attempt."""
    failure = None
    data = None
    if member.etag is None:
        failure = Failure(ErrorCode.SOURCE_MISSING, "the object was listed by an earlier run but is gone")
    elif member.size > MAX_ENCODED_BYTES:
        failure = Failure(ErrorCode.IMAGE_TOO_LARGE, f"the object has {member.size} bytes, more than an image may have")
    else:
        try:
            data = StorePath(member.uri, store).read(member.etag)
        except NotFoundError:
            failure = Failure(ErrorCode.SOURCE_MISSING, "the object was listed but is gone")
        except ChangedError:
            failure = Failure(ErrorCode.SOURCE_CHANGED, "the object changed after it was listed")
        except UnaddressableError:
            failure = Failure(ErrorCode.SOURCE_BAD_URI, BAD_URI)
        except StoreError as error:
            if not give_up_failed:
                raise
            failure = Failure(ErrorCode.SOURCE_UNREADABLE, f"the object could not be read ({type(error).__name__})")
    return Record(key=member.key, data=data, true_label=member.true_label, failure=failure)
