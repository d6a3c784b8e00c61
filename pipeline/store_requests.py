"""Requests to an object store: their errors in our words, and patience with what may pass by itself."""

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from obstore.exceptions import BaseError

from pipeline.store_errors import TransientError, from_client_error

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_PAUSE_S = 10.0


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Turns the client's errors into ours; `from None`, since theirs hold whole answers."""
    try:
        yield
    except (BaseError, OSError, ValueError, NotImplementedError) as error:
        raise from_client_error(uri, error) from None


def retrying(uri: str, retry_s: float, request: Callable[[], T]) -> T:
    """What `request` returns, asked again after growing pauses while it fails transiently, for up to `retry_s`."""
    started, attempt = time.monotonic(), 1
    while True:
        try:
            with translated(uri):
                return request()
        except TransientError as error:
            spent_s = time.monotonic() - started
            pause_s = min(MAX_PAUSE_S, 0.1 * 2**attempt) * random.uniform(0.5, 1.0)
            if spent_s + pause_s > retry_s:
                raise TransientError(f"{error} (gave up after {attempt} attempts in {spent_s:.0f} s)") from None
            logger.info("store.retried attempt=%d pause_s=%.1f error=%s", attempt, pause_s, error)
            time.sleep(pause_s)
            attempt += 1
