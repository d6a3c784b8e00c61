"""A seekable file over one object, read in blocks by a function that fetches a range."""

import io
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from pipeline.store.errors import StoreError
from pipeline.store.meter import waiting

BLOCK_BYTES = 8 * 2**20
"""Size of the range that one request fetches."""

# Takes the first byte and the length of a range, and returns exactly the bytes of the range.
Fetch = Callable[[int, int], memoryview]


class BlockReader(io.RawIOBase):
    """A file over one object, read in blocks. While a reader goes forward, the next block is fetched in advance.

    Args:
        size: Size of the object in bytes.
        fetch: Function that returns the bytes of a range. Each read passes the errors of the function on.
        fetch_ahead: Function that fetches the block after the current block, by a single attempt; None fetches no
            block in advance.
    """

    def __init__(self, size: int, fetch: Fetch, fetch_ahead: Fetch | None = None):
        self._size, self._fetch, self._fetch_ahead = size, fetch, fetch_ahead
        self._position = 0
        self._index, self._block = -1, memoryview(b"")
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: tuple[int, Future[memoryview]] | None = None

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a position, which may lie behind the end of the object, and returns the position."""
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if position < 0:
            raise ValueError(f"seek to {position}")
        self._position = position
        return position

    def readinto(self, buffer: Any) -> int:
        """Reads bytes into the buffer and returns their number; 0 at the end of the object."""
        part = self._next_part(len(buffer))
        buffer[: len(part)] = part
        return len(part)

    def readall(self) -> bytes:
        """Returns the bytes from the current position to the end of the object."""
        return b"".join(iter(lambda: self._next_part(BLOCK_BYTES), b""))

    def _next_part(self, max_bytes: int) -> memoryview:
        if self._position >= self._size:
            return memoryview(b"")
        index, offset = divmod(self._position, BLOCK_BYTES)
        if index != self._index:
            self._turn_to(index)
        part = self._block[offset : offset + max_bytes]
        self._position += len(part)
        return part

    def _turn_to(self, index: int) -> None:
        reads_on = index == self._index + 1
        with waiting():
            self._block, self._index = self._take(index), index
        if self._fetch_ahead and reads_on and (index + 1) * BLOCK_BYTES < self._size:
            self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
            self._ahead = index + 1, self._pool.submit(self._fetch_ahead, *self._range(index + 1))

    def _take(self, index: int) -> memoryview:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == index:
            # The fetch in advance is a single attempt. If that attempt failed, `fetch` below requests the block again,
            # and raises an error that lasts.
            with suppress(StoreError):
                return ahead[1].result()
        return self._fetch(*self._range(index))

    def _range(self, index: int) -> tuple[int, int]:
        start = index * BLOCK_BYTES
        return start, min(BLOCK_BYTES, self._size - start)

    def close(self) -> None:
        """Waits for a block that is being fetched, and frees the blocks."""
        if not self.closed and self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._ahead, self._block = None, memoryview(b"")
        super().close()
