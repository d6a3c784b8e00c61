"""The errors of a pass on their way through Ray: one log line each, and the reason for each block that was dropped.

Ray pickles the exception of a task, and Python pickles neither its traceback nor its cause. So each step words its
exception where it was raised (`explained`), and the driver finds the words in what Ray has made of it (`dropped_for`).
"""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ray.data.exceptions import SystemException
from ray.exceptions import RayError, UserCodeException

from pipeline.chunks.bugs import explain
from pipeline.cluster.cluster import NO_ROOM_ERRORS

logger = logging.getLogger(__name__)

_NAMES_AN_ERROR = re.compile(r"[\w.]+(Error|Exception)\b.*: ")
_MAX_CHARS = 300


class StepError(UserCodeException):
    """A step failed; the message names the step and says what went wrong."""


@contextmanager
def explained(step: str) -> Iterator[None]:
    """Turns an exception of the block into a `StepError`; Ray's own exceptions go through, since their type matters."""
    try:
        yield
    except RayError:
        raise
    except Exception as error:
        raise StepError(f"{step}: {explain(error, max_chars=_MAX_CHARS)}") from error


@dataclass(frozen=True, slots=True)
class Dropped:
    """Why a block was dropped, or a pass was given up.

    Attributes:
        reason: one line.
        for_room: Ray had no room for the block; nothing is wrong with its data.
    """

    reason: str
    for_room: bool = False


class _ErrorHandler(logging.Handler):
    """Takes the errors that Ray Data logs: one line each in our log; Ray's log file keeps their tracebacks."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.dropped: list[Dropped] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Takes one error."""
        error = record.exc_info[1] if record.exc_info else None
        dropped = dropped_for(error) if error is not None else Dropped(record.getMessage().partition("\n")[0])
        self.dropped.append(dropped)
        logger.warning("block.dropped reason=%s", dropped.reason)


def ignore_advice() -> None:
    """Hides the warnings of Ray Data from now on; to be called before another thread can be silencing warnings.

    The warnings advise against settings that are chosen on purpose, and against the only spelling that the pinned
    version has.
    """
    warnings.filterwarnings("ignore", module=r"ray\.data")
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")


@contextmanager
def taken_errors() -> Iterator[_ErrorHandler]:
    """Takes the errors that Ray Data logs until the block ends."""
    ray_logger, complaints = logging.getLogger("ray.data"), _ErrorHandler()
    for handler in ray_logger.handlers:
        # Ray's console handler alone: the handler of Ray's log file is no StreamHandler, and others may listen too.
        if isinstance(handler, logging.StreamHandler) and type(handler).__module__.partition(".")[0] == "ray":
            handler.setLevel(logging.CRITICAL)
    ray_logger.addHandler(complaints)
    try:
        yield complaints
    finally:
        ray_logger.removeHandler(complaints)


def dropped_for(error: BaseException) -> Dropped:
    """Returns the reason in an exception that Ray raised: the line that names the innermost error.

    Ray wraps that error in tracebacks above and advice below.
    """
    cause = error
    while (inner := getattr(cause, "cause", None) or cause.__cause__) is not None and inner is not cause:
        # A mark without a message that Ray Data hangs below an error of its own or of Ray.
        if isinstance(inner, SystemException):
            break
        cause = inner
    if type(cause) is StepError:
        return Dropped(str(cause))
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    named = [line for line in lines if _NAMES_AN_ERROR.match(line)]
    text = named[-1] if named else f"{type(cause).__name__}: {lines[0] if lines else 'no message'}"
    # The exception of an actor that did not start comes as text alone.
    text = text.removeprefix(f"{StepError.__module__}.{StepError.__name__}: ")
    return Dropped(text[:_MAX_CHARS], for_room=isinstance(cause, NO_ROOM_ERRORS))
