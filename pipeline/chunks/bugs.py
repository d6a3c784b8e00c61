"""Decides whether an exception is a bug of this project, or comes from bad data or a failing machine.

The frame that raised the exception decides: Pillow and Arrow raise `TypeError` and `AssertionError` over broken bytes,
so the type of such an exception says nothing. An exception is a bug if the innermost frame of its traceback lies in
`pipeline/`, `model/` or `jobs/`, and if Python itself raises its class. Three kinds of exceptions from such a frame are
no bugs:

- Classes of this project, such as `StoreError`: the code raises them on purpose.
- Classes of a library, such as `tarfile.ReadError`: the code raises them over bad data, or compiled code of the library
  raises them, and compiled code leaves no frame of its own.
- `OSError`, `EOFError` and `MemoryError`: the machine failed, or the data ended too early.
"""

import builtins
import os
import re
from pathlib import Path

_PACKAGES = ("pipeline", "model", "jobs")
_ROOT = Path(__file__).resolve().parent.parent.parent
_MACHINE_OR_DATA = (OSError, EOFError, MemoryError)
_MAX_PLACE_CHARS = 50
_BUG = re.compile(rf"bug at ((?:{'|'.join(_PACKAGES)})/[\w/]+\.py:\d+): ")


def explain(error: BaseException, context: str = "", max_chars: int = 150) -> str:
    """Returns an exception as one line, the same on every attempt; for a bug the line begins with file and line number.

    `find_bug` decides what is a bug.

    Args:
        error: An exception that was caught, with its traceback.
        context: The work that failed, or the format of the data.
        max_chars: Largest number of characters of the exception's own text.
    """
    text, place = error_text(error, max_chars), find_bug(error)
    if place is None:
        return f"{context}: {text}" if context else text
    message = f"bug at {place}: {text}" + (f" ({context})" if context else "")
    return message[: max_chars + _MAX_PLACE_CHARS]


def find_bug(error: BaseException) -> str | None:
    """Returns file and line of the bug that raised an exception, as `pipeline/decode/to_rgb.py:41`; None without a bug.

    Args:
        error: An exception that was caught, with its traceback.
    """
    trace = error.__traceback__
    if trace is None or type(error).__module__ != builtins.__name__ or isinstance(error, _MACHINE_OR_DATA):
        return None
    while trace.tb_next is not None:
        trace = trace.tb_next
    path = Path(os.path.realpath(trace.tb_frame.f_code.co_filename))
    if not any(path.is_relative_to(_ROOT / package) for package in _PACKAGES):
        return None
    return f"{path.relative_to(_ROOT).as_posix()}:{trace.tb_lineno}"


def bug_in(message: str | None) -> str | None:
    """Returns file and line that a message of `explain` begins with; None if the message is not about a bug."""
    match = _BUG.match(message or "")
    return None if match is None else match[1]


def error_text(error: BaseException, max_chars: int = 150) -> str:
    """Returns an exception as one line that is equal on every attempt, because memory addresses are left out."""
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", f"{type(error).__name__}: {error}")
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:max_chars]
