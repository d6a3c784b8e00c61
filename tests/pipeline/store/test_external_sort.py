"""Sorting beyond memory: any order of entries, duplicates, and how much is held."""

import random
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.store import external_sort as spool
from pipeline.store.errors import StoreError
from pipeline.store.external_sort import Entry, Sorter, Spool


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.text(max_size=2), max_size=9), max_size=9))
def test_entries_come_back_sorted_and_each_key_once(additions: list[list[str]]) -> None:
    with (
        patch.multiple(spool, _SORTED_ENTRIES=5, _BLOCK_ENTRIES=2, _FAN_IN=2, _MEMORY_BYTES=500),
        closing(Spool()) as shared,
    ):
        sorters = [Sorter(shared) for _ in additions]
        for sorter, keys in zip(sorters, additions, strict=True):
            sorter.add((key, 2**40, "etag", 1.5) for key in keys)
        for sorter, keys in zip(sorters, additions, strict=True):
            assert list(sorter) == [(key, 2**40, "etag", 1.5) for key in sorted(set(keys))]
            assert sorter.num_entries == len(keys)


@pytest.mark.parametrize("is_sorted", [True, False])
def test_memory_does_not_grow_with_the_entries(monkeypatch: pytest.MonkeyPatch, is_sorted: bool) -> None:
    for name, value in {"_MEMORY_BYTES": 2**20, "_SORTED_ENTRIES": 500, "_BLOCK_ENTRIES": 500, "_FAN_IN": 4}.items():
        monkeypatch.setattr(spool, name, value)
    numbers = list(range(30_000))
    if not is_sorted:
        random.Random(0).shuffle(numbers)

    def made() -> Iterator[Entry]:
        for number in numbers:
            yield f"images/{number:09d}.jpg", number, f'"{number * 0x9E3779B97F4A7C15:032x}"', 1.7e9 + number

    with closing(Spool()) as shared:
        tracemalloc.start()
        try:
            sorter = Sorter(shared)
            sorter.add(made())
            assert sum(1 for _ in sorter) == 30_000
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    # As tuples in a list they are 8 MB.
    assert peak_bytes < 3e6


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Spool()) as shared:
        monkeypatch.setattr(shared._file, "write", lambda data: (_ for _ in ()).throw(OSError(28, "No space left")))
        sorter = Sorter(shared)
        sorter.add([("a", 1, "", 0.0)])
        with pytest.raises(StoreError, match=r"temporary file in .*: .*No space left"):
            list(sorter)
