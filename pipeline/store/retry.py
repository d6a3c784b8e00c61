"""The retry policy of all object stores.

`retrying` is the only loop that repeats a request; the clients below that loop send each request once. The one
exception is the listing of Google Cloud and Azure: only their client knows the page that broke off, so the client
itself repeats the request. `StoreConfig` holds the deadline, and `pipeline.store.errors` decides which answers are
transient.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError, SSLError
from botocore.exceptions import ConnectionError as BotoConnectionError
from obstore.exceptions import BaseError

from pipeline.store.errors import (
    ChangedError,
    StoreError,
    TransientError,
    from_answer,
    from_client_error,
    naming,
    redact,
)
from pipeline.store.meter import count_failure

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_PAUSE_S = 0.2
MAX_PAUSE_S = 10.0

BOTO_ASKS_ONCE = {"total_max_attempts": 1}
"""The retry settings of boto3's clients: each request is sent once."""


def client_retries(deadline_s: float) -> Any:
    """Returns the retry settings of an obstore client; with a deadline of 0 the client sends each request once."""
    if deadline_s == 0:
        return {"max_retries": 0}
    pause = timedelta(seconds=min(MAX_PAUSE_S, max(deadline_s / 4, 0.1)))
    return {
        "max_retries": 100,
        "retry_timeout": timedelta(seconds=deadline_s),
        "backoff": {"max_backoff": pause},
    }


@contextmanager
def translated(uri: str, permission: str = "") -> Iterator[None]:
    """Translates errors of the client into store errors.

    A store error has no cause, since the texts of the client's errors hold whole answers.

    Args:
        permission: The S3 permission that the request needs, for the message of a refusal.
    """
    try:
        yield
    except (BaseError, OSError, ValueError, NotImplementedError) as error:
        raise naming(uri, from_client_error(uri, error), permission) from None


@contextmanager
def boto_translated(uri: str, permission: str) -> Iterator[None]:
    """Translates errors of boto3's client into store errors.

    Args:
        permission: The S3 permission that the request needs, for the message of a refusal.
    """
    try:
        yield
    except ClientError as error:
        said = error.response.get("Error", {})
        answer = error.response.get("ResponseMetadata", {})
        status, headers = answer.get("HTTPStatusCode", 0), answer.get("HTTPHeaders", {})
        if status == 412:
            raise ChangedError(f"{uri}: does not have the ETag asked for") from None
        # The answer to a HEAD has no body: boto3 gives the status as the code.
        code = "" if said.get("Code", "") == str(status) else said.get("Code", "")
        refusal = from_answer(uri, status, code, said.get("Message", ""), retry_after=headers.get("retry-after"))
        raise naming(uri, refusal, permission) from None
    except SSLError as error:
        raise StoreError(f"{uri}: {redact(str(error))}") from None
    except (HTTPClientError, BotoConnectionError, IncompleteReadError) as error:
        raise TransientError(f"{uri}: {redact(str(error))}") from None
    except BotoCoreError as error:
        raise StoreError(f"{uri}: {redact(str(error))}") from None


def retrying(uri: str, deadline_s: float, request: Callable[[], T]) -> T:
    """Calls `request` until it succeeds or fails for good, with growing pauses between the calls; returns the result.

    If the store asks for a pause, such as by the header Retry-After, the next pause is at least that long, but ends at
    the deadline.

    Args:
        deadline_s: Seconds after which the request is sent for the last time; 0 sends the request once.
        request: Function that makes one attempt. The attempt limits its own time and does not repeat anything.

    Raises:
        TransientError: The request still fails at the deadline.
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
            # Jitter spreads requests that were refused at the same moment.
            grown_s = min(MAX_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(attempt - 1, 10))
            pause_s = min(error.wait_s + grown_s * random.uniform(0.5, 1.0), deadline_s - spent_s)
            logger.info("store.retried attempt=%d pause_s=%.1f error=%s", attempt, pause_s, error)
            time.sleep(pause_s)
            attempt += 1
