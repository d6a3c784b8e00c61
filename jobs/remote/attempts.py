"""Requests that are repeated until they are answered, and the attempts at one job."""

import logging
import time
from collections.abc import Callable
from typing import Literal, TypeVar

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")
AttemptState = Literal["running", "done", "failed"]

_RETRY_S = 2.0


class NoAnswerError(Exception):
    """A service gave no answer; a later request may succeed.

    Attributes:
        reason: One line for the log that says what went wrong; the message may add advice.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


def ask_until_answered(ask: Callable[[], Answer], patience_s: float, event: str) -> Answer:
    """Returns the answer to a request, which is repeated while `ask` raises a `NoAnswerError`.

    Args:
        ask: Function that sends the request and returns the answer.
        patience_s: Seconds, counted from the first request, after which a failed request is not repeated.
        event: Name of the log event that each repetition writes.

    Raises:
        NoAnswerError: The last request failed too.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return ask()
        except NoAnswerError as error:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise
            logger.warning(event + " asked_for_another_s=%.0f error=%s", left_s, error.reason)
        time.sleep(min(_RETRY_S, left_s))


def find_or_create(
    base: str,
    max_attempts: int,
    find: Callable[[str], AttemptState | None],
    create: Callable[[str, int], bool],
) -> tuple[str, bool]:
    """Returns the name of the attempt to follow, and whether that attempt is the last one and has failed.

    The attempt to follow is the first that has not failed. An attempt that does not exist yet is created.

    Args:
        base: Name of the first attempt; later attempts are named `base-2`, `base-3` and so on.
        max_attempts: Largest number of attempts.
        find: Function that returns the state of the attempt with a name; None if there is no such attempt.
        create: Function that creates the attempt with a name and a number, and returns True. Returns False if another
            start has created the attempt meanwhile.
    """
    name = base
    for number in range(1, max_attempts + 1):
        name = base if number == 1 else f"{base}-{number}"
        state = find(name)
        if state is None:
            state = "running" if create(name, number) else find(name)
        if state != "failed":
            return name, False
    return name, True
