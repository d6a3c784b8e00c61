"""Requests to an object store: their errors in our words, and patience with what may pass by itself."""

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from obstore.exceptions import BaseError

from pipeline.store.errors import TransientError, from_client_error, naming
from pipeline.store.meter import count_failure

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_PAUSE_S = 0.2
MAX_PAUSE_S = 10.0


@contextmanager
def translated(uri: str, permission: str = "") -> Iterator[None]:
    """Turns the client's errors into ours; `from None`, since theirs hold whole answers.

    Args:
        permission: of S3 that the request takes, to be named where it is refused.
    """
    try:
        yield
    except (BaseError, OSError, ValueError, NotImplementedError) as error:
        raise naming(uri, from_client_error(uri, error), permission) from None


def retrying(uri: str, deadline_s: float, request: Callable[[], T]) -> T:
    """What `request` returns, asked again after growing pauses while it fails transiently.

    A store that says how long it wants to be left alone is left alone for so long, but not beyond the deadline.

    Args:
        deadline_s: after so many seconds it is asked for the last time; 0 asks once.
        request: one attempt, which bounds its own time; it must not be patient itself.

    Raises:
        TransientError: it still fails at the deadline.
    """
    started, attempt = time.monotonic(), 1
    while True:
        try:
            with translated(uri):
                return request()
        except TransientError as error:
            count_failure(retried=time.monotonic() - started < deadline_s)
            spent_s = time.monotonic() - started
            if spent_s >= deadline_s:
                said = f"{error} (gave up after {attempt} attempts in {spent_s:.0f} s)"
                raise TransientError(said, error.wait_s) from None
            # Jittered, or all that were refused together come back together.
            grown_s = min(MAX_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(attempt - 1, 10))
            pause_s = min(error.wait_s + grown_s * random.uniform(0.5, 1.0), deadline_s - spent_s)
            logger.info("store.retried attempt=%d pause_s=%.1f error=%s", attempt, pause_s, error)
            time.sleep(pause_s)
            attempt += 1
