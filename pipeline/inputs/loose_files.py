"""Loose image objects: fetched concurrently, yielded in order.

Small files that this machine has in memory are read on the way, without a thread: handing one over takes longer.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.chunks.failures import ErrorCode, Failure
from pipeline.inputs.record import MAX_ENCODED_BYTES, Record
from pipeline.store.errors import ChangedError, NotFoundError, StoreError
from pipeline.store.meter import waiting
from pipeline.store.storage import StoreConfig, read, read_at_once


@dataclass(frozen=True, slots=True)
class Member:
    """One loose object of a virtual shard, as it was listed; `etag` is None if it was gone when the plan was made."""

    uri: str
    key: str
    size: int
    etag: str | None
    true_label: str | None


_FETCH_THREADS = 16
# What may be fetched ahead of the record that is yielded next.
_WINDOW_FILES = 64
_WINDOW_BYTES = 128 * 2**20
_AT_ONCE_BYTES = 2**18


def read_files(members: Sequence[Member], store: StoreConfig, *, give_up_failed: bool) -> Iterator[Record]:
    """One record for each member, in the members' order.

    Args:
        give_up_failed: what a store that cannot be read comes to: True makes the record a failed one, False raises.

    Raises:
        StoreError: a member could not be read for another reason than that it is gone or changed.
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
                at_once = _fetch_at_once(member)
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


def _fetch_at_once(member: Member) -> Record | None:
    """The record of a member for which nothing is waited for; None: it is fetched as any other, whatever is wrong."""
    if member.etag is None or member.size > _AT_ONCE_BYTES:
        return None
    try:
        data = read_at_once(member.uri, member.etag)
    except StoreError:
        return None
    return None if data is None else Record(key=member.key, data=data, true_label=member.true_label)


def _fetch(member: Member, store: StoreConfig, give_up_failed: bool) -> Record:
    """One member's record; what it says on failure is the same on every attempt."""
    failure = None
    data = None
    if member.etag is None:
        failure = Failure(ErrorCode.SOURCE_MISSING, "the object was listed by an earlier run but is gone")
    elif member.size > MAX_ENCODED_BYTES:
        failure = Failure(ErrorCode.IMAGE_TOO_LARGE, f"the object has {member.size} bytes, more than an image may have")
    else:
        try:
            data = read(member.uri, store, etag=member.etag)
        except NotFoundError:
            failure = Failure(ErrorCode.SOURCE_MISSING, "the object was listed but is gone")
        except ChangedError:
            failure = Failure(ErrorCode.SOURCE_CHANGED, "the object changed after it was listed")
        except StoreError as error:
            if not give_up_failed:
                raise
            failure = Failure(ErrorCode.SOURCE_UNREADABLE, f"the object could not be read ({type(error).__name__})")
    return Record(key=member.key, data=data, true_label=member.true_label, failure=failure)
