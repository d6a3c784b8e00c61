"""Temporary files without names, for data that is too large for memory; each file disappears with its process."""

import logging
import mmap
import tempfile
from collections.abc import Callable
from typing import Any

import pyarrow as pa

logger = logging.getLogger(__name__)

Write = Callable[[Any], None]


def in_memory(write: Write) -> pa.Buffer:
    """Returns the bytes that `write` writes into a stream in memory."""
    sink = pa.BufferOutputStream()
    write(sink)
    return sink.getvalue()


def on_disk(write: Write) -> pa.Buffer:
    """Returns the bytes that `write` writes into a temporary file, mapped into memory.

    The kernel caches as much of the file as fits.

    Raises:
        OSError: The folder for temporary files (TMPDIR) is full or missing.
    """
    with tempfile.TemporaryFile() as file:
        write(file)
        file.flush()
        if not file.tell():
            return pa.py_buffer(b"")
        return pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def on_disk_if_it_can(write: Write) -> pa.Buffer:
    """Returns the bytes that `write` writes, held on the disk, or in memory if the disk is full."""
    try:
        return on_disk(write)
    except OSError as error:
        logger.warning("scratch.full folder=%s error=%s", tempfile.gettempdir(), error)
        return in_memory(write)
