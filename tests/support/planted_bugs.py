"""Bugs that tests plant: functions that raise as if they stood in a file of this project."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def planted_bug(file: str, line: int = 41, error: str = "AttributeError") -> Callable[..., Any]:
    """Returns a function of any arguments that raises at a line of a file of this project, in Ray's workers too."""
    namespace: dict[str, Any] = {"__name__": "planted"}
    exec(compile(bug_source(line, error), str(ROOT / file), "exec"), namespace)
    return namespace["bug"]


def bug_source(line: int = 41, error: str = "AttributeError") -> str:
    """Returns the code of a function `bug` that raises at some line."""
    return "\n" * (line - 1) + f"def bug(*args, **kwargs): raise {error}('planted bug 4711')"
