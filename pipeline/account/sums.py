"""Adds two values of a dataclass field by field."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

Sums = TypeVar("Sums")


def add_fields(first: Sums, second: Sums) -> Sums:
    """Returns the sum of two values of one dataclass, whose fields are numbers, arrays, or numbers by key."""
    value: Any = first
    names = [field.name for field in fields(value)]
    return replace(value, **{name: _add(getattr(first, name), getattr(second, name)) for name in names})


def _add(first: Any, second: Any) -> Any:
    if not isinstance(first, Mapping):
        return first + second
    return {key: first.get(key, 0) + second.get(key, 0) for key in sorted({*first, *second})}
