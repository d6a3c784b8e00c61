"""Loose image objects: fetched concurrently, yielded in order."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline.errors import ErrorCode, Failure
from pipeline.plan import Member
from pipeline.shards.record import MAX_ENCODED_BYTES, Record
from pipeline.storage import StoreConfig, read
from pipeline.store_errors import ChangedError, NotFoundError, StoreError

_FETCH_THREADS = 16
# What may be fetched ahead of the record that is yielded next.
_WINDOW_FILES = 64
_WINDOW_BYTES = 128 * 2**20


def read_files(members: Sequence[Member], store: StoreConfig, *, give_up_failed: bool) -> Iterator[Record]:
    """One record for each member, in the members' order.

    Args:
        give_up_failed: what a store that cannot be read comes to: True makes the record a failed one, False raises.

    Raises:
        StoreError: a member could not be read for another reason than that it is gone or changed.
    """
    with ThreadPoolExecutor(_FETCH_THREADS, thread_name_prefix="fetch") as pool:
        waiting: deque[tuple[Member, Future[Record]]] = deque()
        ahead_bytes = 0
        try:
            for member in members:
                while waiting and (len(waiting) >= _WINDOW_FILES or ahead_bytes + member.size > _WINDOW_BYTES):
                    oldest, future = waiting.popleft()
                    ahead_bytes -= oldest.size
                    yield future.result()
                waiting.append((member, pool.submit(_fetch, member, store, give_up_failed)))
                ahead_bytes += member.size
            while waiting:
                yield waiting.popleft()[1].result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


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
