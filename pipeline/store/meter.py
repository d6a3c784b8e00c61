"""Counters of the requests, bytes and seconds that this process spent on stores, in all threads."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace


@dataclass(slots=True)
class StoreUse:
    """Requests, bytes and seconds that one process has spent on stores so far.

    Attributes:
        requests: Number of requests that fetched bytes, plus the number of transient failures of all requests.
        retries: Number of requests that were repeated after a failure.
        bytes_in: Number of bytes that arrived.
        first_byte_s: Seconds from a request to the beginning of its answer, summed over requests.
        fetch_s: Seconds from a request to the end of its answer, summed over requests.
        read_wait_s: Seconds in which readers waited for bytes, summed over readers.
    """

    requests: int = 0
    retries: int = 0
    bytes_in: int = 0
    first_byte_s: float = 0.0
    fetch_s: float = 0.0
    read_wait_s: float = 0.0

    def since(self, before: "StoreUse") -> dict[str, float]:
        """Returns, by the name of each attribute, the difference to its earlier value in `before`."""
        return {field.name: float(getattr(self, field.name) - getattr(before, field.name)) for field in fields(self)}


_used = StoreUse()
_counting = threading.Lock()


def store_use() -> StoreUse:
    """Returns a copy of this process' counters."""
    with _counting:
        return replace(_used)


def count_fetch(started: float, answered: float, num_bytes: int) -> None:
    """Counts a request whose bytes have arrived.

    Args:
        started: `time.perf_counter()` before the request.
        answered: `time.perf_counter()` at the beginning of the answer.
    """
    now = time.perf_counter()
    with _counting:
        _used.requests += 1
        _used.bytes_in += num_bytes
        _used.first_byte_s += answered - started
        _used.fetch_s += now - started


def count_failure(*, retried: bool) -> None:
    """Counts a request that failed, and a retry if the request is repeated."""
    with _counting:
        _used.requests += 1
        _used.retries += retried


@contextmanager
def waiting() -> Iterator[None]:
    """Counts the time that the `with` block takes as time spent waiting for a store."""
    started = time.perf_counter()
    try:
        yield
    finally:
        spent_s = time.perf_counter() - started
        with _counting:
            _used.read_wait_s += spent_s
