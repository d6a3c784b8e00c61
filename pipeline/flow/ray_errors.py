"""Ray Data's errors while a pass runs: one log line each, and the reason for each block that was dropped."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ray.data.exceptions import SystemException

from pipeline.cluster.cluster import NO_ROOM_ERRORS

logger = logging.getLogger(__name__)


_NAMES_AN_ERROR = re.compile(r"[\w.]+(Error|Exception)\b.*: ")


@dataclass(frozen=True, slots=True)
class Dropped:
    """Why a block was dropped, or a pass was given up.

    Attributes:
        for_room: Ray had no room for a block; nothing is wrong with what is in it.
    """

    reason: str
    for_room: bool = False


class _ErrorHandler(logging.Handler):
    """Takes Ray Data's errors while a pass runs: one line each in our log, their tracebacks in Ray's log file only."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.dropped: list[Dropped] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Notes one error."""
        error = record.exc_info[1] if record.exc_info else None
        dropped = dropped_for(error) if error is not None else Dropped(record.getMessage().partition("\n")[0])
        self.dropped.append(dropped)
        logger.warning("block.dropped reason=%s", dropped.reason)


def ignore_advice() -> None:
    """From now on Ray Data's warnings are not shown: call it before another thread can be silencing warnings.

    They advise on what is chosen here on purpose, and on spellings that the pinned version has no other for.
    """
    warnings.filterwarnings("ignore", module=r"ray\.data")
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")


@contextmanager
def taken_errors() -> Iterator[_ErrorHandler]:
    """Takes Ray Data's errors until the block ends."""
    ray_logger, complaints = logging.getLogger("ray.data"), _ErrorHandler()
    for handler in ray_logger.handlers:
        if type(handler).__name__ == "PlainRayHandler":
            handler.setLevel(logging.CRITICAL)
    ray_logger.addHandler(complaints)
    try:
        yield complaints
    finally:
        ray_logger.removeHandler(complaints)


def dropped_for(error: BaseException) -> Dropped:
    """The line that names the innermost error; Ray wraps it in tracebacks above and advice below."""
    cause = error
    while (inner := getattr(cause, "cause", None) or cause.__cause__) is not None and inner is not cause:
        # A mark that Ray Data hangs below an error of its own or of Ray; it says nothing.
        if isinstance(inner, SystemException):
            break
        cause = inner
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    named = [line for line in lines if _NAMES_AN_ERROR.match(line)]
    text = named[-1] if named else f"{type(cause).__name__}: {lines[0] if lines else 'no message'}"
    return Dropped(text[:300], for_room=isinstance(cause, NO_ROOM_ERRORS))
