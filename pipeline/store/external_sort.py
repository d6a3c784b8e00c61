"""Sorts the entries of a listing in bounded memory; entries that do not fit go to a compressed temporary file."""

import heapq
import marshal
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

import pyarrow as pa

from pipeline.store.errors import StoreError

# Key, size in bytes, ETag and last-modified time in Unix seconds. A plain tuple, since marshal writes no other class.
Entry = tuple[str, int, str, float]

# The file is held in memory up to this size (some 400,000 entries), and on the disk if it is larger.
_MEMORY_BYTES = 16 * 2**20
# Numbers of entries that are sorted at once, and read back at once. An entry takes some 300 bytes as a Python object.
_SORTED_ENTRIES = 8192
_BLOCK_ENTRIES = 1024
# Sorted runs that are merged at once; each holds one block in memory.
_FAN_IN = 64


class _Block(NamedTuple):
    offset: int
    packed_bytes: int
    raw_bytes: int


class Spool:
    """A temporary file without a name, which sorters in several threads share. The owner must close the spool."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES)  # noqa: SIM115
        self._lock = threading.Lock()
        self._end = 0

    def write(self, entries: list[Entry]) -> _Block:
        """Appends the entries to the file and returns the block that they form.

        Raises:
            StoreError: The temporary folder is full, or the spool is closed.
        """
        raw = marshal.dumps(entries)
        packed = pa.compress(raw, codec="zstd", asbytes=True)
        with self._lock, _file_errors():
            block = _Block(self._end, len(packed), len(raw))
            self._file.seek(block.offset)
            self._file.write(packed)
            self._end += len(packed)
        return block

    def read(self, block: _Block) -> list[Entry]:
        """Returns the entries of a block that `write` returned."""
        with self._lock, _file_errors():
            self._file.seek(block.offset)
            packed = self._file.read(block.packed_bytes)
        return marshal.loads(pa.decompress(packed, block.raw_bytes, codec="zstd", asbytes=True))

    def close(self) -> None:
        """Closes the file, which deletes it."""
        with self._lock:
            self._file.close()


class Sorter:
    """Takes entries in any order, and yields them in the order of the code points of their keys, each key once.

    Entries that arrive in order are not sorted again.

    Attributes:
        num_entries: Number of entries that were added.
    """

    def __init__(self, spool: Spool) -> None:
        self.num_entries = 0
        self._spool = spool
        self._buffer: list[Entry] = []
        self._runs: list[list[_Block]] = []
        self._last_key = ""

    def add(self, entries: Iterable[Entry]) -> None:
        """Adds entries."""
        rest = iter(entries)
        while more := list(islice(rest, _SORTED_ENTRIES - len(self._buffer))):
            self._buffer += more
            self.num_entries += len(more)
            if len(self._buffer) >= _SORTED_ENTRIES:
                self.flush()

    def flush(self) -> None:
        """Moves the added entries to the spool, so that the sorter needs almost no memory until it is read."""
        if not self._buffer:
            return
        self._buffer.sort()
        if not self._runs or self._buffer[0][0] < self._last_key:
            self._runs.append([])
        self._runs[-1] += self._write(self._buffer)
        self._last_key = self._buffer[-1][0]
        self._buffer = []

    def __iter__(self) -> Iterator[Entry]:
        self.flush()
        runs = self._runs
        while len(runs) > _FAN_IN:
            groups = [runs[start : start + _FAN_IN] for start in range(0, len(runs), _FAN_IN)]
            runs = [list(self._write(self._merged(group))) for group in groups]
        last_key = None
        for entry in self._merged(runs):
            if entry[0] != last_key:
                yield entry
            last_key = entry[0]

    def _write(self, entries: Iterable[Entry]) -> Iterator[_Block]:
        block: list[Entry] = []
        for entry in entries:
            block.append(entry)
            if len(block) == _BLOCK_ENTRIES:
                yield self._spool.write(block)
                block = []
        if block:
            yield self._spool.write(block)

    def _merged(self, runs: Sequence[Sequence[_Block]]) -> Iterator[Entry]:
        return heapq.merge(*map(self._read, runs)) if len(runs) > 1 else self._read(runs[0] if runs else ())

    def _read(self, run: Iterable[_Block]) -> Iterator[Entry]:
        for block in run:
            yield from self._spool.read(block)


@contextmanager
def _file_errors() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise StoreError(f"a listing's temporary file in {tempfile.gettempdir()}: {error}") from None
