"""What this process asked of stores: requests, bytes and seconds, counted where they happen, in whatever thread."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace


@dataclass(slots=True)
class StoreUse:
    """Sums since the process began, or between two moments.

    Attributes:
        requests: for bytes of inputs, repeated ones included.
        retries: requests that were repeated after a failure.
        bytes_in: that came.
        first_byte_s: from requests to the beginning of their answers.
        fetch_s: whole requests.
        read_wait_s: whoever wanted the bytes waited for them.
    """

    requests: int = 0
    retries: int = 0
    bytes_in: int = 0
    first_byte_s: float = 0.0
    fetch_s: float = 0.0
    read_wait_s: float = 0.0

    def since(self, before: "StoreUse") -> dict[str, float]:
        """By name, what came on top."""
        return {field.name: float(getattr(self, field.name) - getattr(before, field.name)) for field in fields(self)}


_used = StoreUse()
_counting = threading.Lock()


def store_use() -> StoreUse:
    """What this process has used so far."""
    with _counting:
        return replace(_used)


def count_fetch(started: float, answered: float, num_bytes: int) -> None:
    """Counts a request that has given its bytes.

    Args:
        started: `time.perf_counter()` before it.
        answered: the same when its answer began.
    """
    now = time.perf_counter()
    with _counting:
        _used.requests += 1
        _used.bytes_in += num_bytes
        _used.first_byte_s += answered - started
        _used.fetch_s += now - started


def count_failure(*, retried: bool) -> None:
    """Counts a request that failed, and that it is repeated."""
    with _counting:
        _used.requests += 1
        _used.retries += retried


@contextmanager
def waiting() -> Iterator[None]:
    """Counts the time in it as waiting for a store."""
    started = time.perf_counter()
    try:
        yield
    finally:
        spent_s = time.perf_counter() - started
        with _counting:
            _used.read_wait_s += spent_s
