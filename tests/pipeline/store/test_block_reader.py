"""Reads in blocks over a function that fetches ranges: what is fetched, in what order, and what a failure does."""

import hashlib
import io
import threading

import pytest

from pipeline.store.block_reader import BlockReader
from pipeline.store.errors import ChangedError, TransientError

BLOCK = 8 * 2**20
BODY = hashlib.shake_128(b"noise").digest(2 * BLOCK + 7)


class Source:
    """A fetch function over BODY that keeps what it was asked, and fails at first."""

    def __init__(self, *failures: Exception):
        self.failures = list(failures)
        self.asked: list[tuple[int, int]] = []

    def __call__(self, start: int, length: int) -> memoryview:
        self.asked.append((start, length))
        if self.failures:
            raise self.failures.pop(0)
        return memoryview(BODY)[start : start + length]


def test_reading_on_fetches_every_block_once_and_all_but_the_first_ahead() -> None:
    fetch, fetch_ahead = Source(), Source()
    with BlockReader(len(BODY), fetch, fetch_ahead) as reader:
        assert reader.read() == BODY
        assert reader.read(1) == b""
    assert fetch.asked == [(0, BLOCK)]
    assert fetch_ahead.asked == [(BLOCK, BLOCK), (2 * BLOCK, 7)]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


def test_a_seek_fetches_only_the_block_it_leads_to() -> None:
    fetch = Source()
    with io.BufferedReader(BlockReader(len(BODY), fetch), 1024) as reader:
        for position in (2 * BLOCK, 3, BLOCK - 2, len(BODY) - 1):
            reader.seek(position)
            assert reader.read(5) == BODY[position : position + 5]
        assert reader.seek(-3, io.SEEK_END) == len(BODY) - 3
        assert reader.read() == BODY[-3:]
    assert {start for start, _ in fetch.asked} == {0, BLOCK, 2 * BLOCK}


def test_a_block_that_could_not_be_fetched_ahead_is_asked_for_again() -> None:
    fetch, fetch_ahead = Source(), Source(TransientError("busy"))
    with BlockReader(len(BODY), fetch, fetch_ahead) as reader:
        assert reader.read() == BODY
    assert fetch.asked == [(0, BLOCK), (BLOCK, BLOCK)]
    assert fetch_ahead.asked == [(BLOCK, BLOCK), (2 * BLOCK, 7)]


def test_what_fetching_raises_comes_out_of_the_read() -> None:
    with BlockReader(len(BODY), Source(ChangedError("changed"))) as reader, pytest.raises(ChangedError):
        reader.read(1)


def test_there_is_nothing_before_the_start_and_behind_the_end() -> None:
    with BlockReader(len(BODY), fetch := Source()) as reader:
        with pytest.raises(ValueError, match="seek to -1"):
            reader.seek(-1)
        reader.seek(len(BODY) + 1)
        assert reader.read() == reader.read(1) == b""
    assert fetch.asked == []
