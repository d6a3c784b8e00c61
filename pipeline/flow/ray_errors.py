"""Describes the errors of a pass: one log line and one reason for each block that Ray dropped.

Ray pickles the exception of a task, and a pickled exception has neither its traceback nor its cause. So each step
describes an exception in one line where the exception was raised (`explained`). The driver finds that line in the
exception that Ray raises (`dropped_for`).
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
    """Turns an exception of the block into a `StepError`; Ray's own exceptions keep their type, which callers check."""
    try:
        yield
    except RayError:
        raise
    except Exception as error:
        raise StepError(f"{step}: {explain(error, max_chars=_MAX_CHARS)}") from error


@dataclass(frozen=True, slots=True)
class Dropped:
    """The reason why Ray dropped a block, or why Ray ended the whole execution.

    Attributes:
        reason: description of the error, in one line.
        for_room: True if Ray had no room for the block; then nothing is wrong with the data of the block.
    """

    reason: str
    for_room: bool = False


class _ErrorHandler(logging.Handler):
    """Collects the errors that Ray Data logs, and logs one line for each; Ray's own log file keeps the tracebacks."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.dropped: list[Dropped] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Collects the reason of one error, and logs the reason."""
        error = record.exc_info[1] if record.exc_info else None
        dropped = dropped_for(error) if error is not None else Dropped(record.getMessage().partition("\n")[0])
        self.dropped.append(dropped)
        logger.warning("block.dropped reason=%s", dropped.reason)


def ignore_advice() -> None:
    """Hides the warnings of Ray Data from now on.

    Another thread that silences warnings at the same time could undo the call, so the call comes before such threads
    start. The warnings concern settings that are chosen on purpose, and the argument `ray_remote_args`, for which the
    pinned version of Ray has no other name.
    """
    warnings.filterwarnings("ignore", module=r"ray\.data")
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")


@contextmanager
def taken_errors() -> Iterator[_ErrorHandler]:
    """Collects the errors that Ray Data logs until the block ends, and keeps them off the console."""
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
    """Returns the reason of an exception that Ray raised: the line that names the innermost error.

    In the text of the exception Ray puts tracebacks above that line, and advice below it.
    """
    cause = error
    while (inner := getattr(cause, "cause", None) or cause.__cause__) is not None and inner is not cause:
        # Ray Data adds a `SystemException` without a message as the cause of its own errors and of Ray's errors.
        if isinstance(inner, SystemException):
            break
        cause = inner
    if type(cause) is StepError:
        # One line; Ray Data adds advice on retries below.
        return Dropped(str(cause).partition("\n")[0])
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    named = [line for line in lines if _NAMES_AN_ERROR.match(line)]
    text = named[-1] if named else f"{type(cause).__name__}: {lines[0] if lines else 'no message'}"
    # Ray hands on the exception of an actor that did not start only as text.
    text = text.removeprefix(f"{StepError.__module__}.{StepError.__name__}: ")
    return Dropped(text[:_MAX_CHARS], for_room=isinstance(cause, NO_ROOM_ERRORS))
