"""Tests that a page of the docs names, as `tests/...py::name`."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def named_tests(page: str) -> set[tuple[str, str]]:
    """(file, function) of each."""
    return set(re.findall(r"(tests/[\w/]+\.py)::(\w+)", page))


def missing_tests(page: str) -> list[str]:
    """Those that there are not."""
    return [f"{path}::{name}" for path, name in sorted(named_tests(page)) if not _is_there(ROOT / path, name)]


def _is_there(path: Path, name: str) -> bool:
    return path.is_file() and f"def {name}(" in path.read_text()
