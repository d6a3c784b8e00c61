"""Where bytes wait that are too many for memory: files that nobody else sees, and that are gone with their process."""

import logging
import mmap
import tempfile
from collections.abc import Callable
from typing import Any

import pyarrow as pa

logger = logging.getLogger(__name__)

Write = Callable[[Any], None]


def in_memory(write: Write) -> pa.Buffer:
    """What a function writes into the stream that it is given."""
    sink = pa.BufferOutputStream()
    write(sink)
    return sink.getvalue()


def on_disk(write: Write) -> pa.Buffer:
    """The same, in a file without a name, mapped: the kernel holds as much of it in memory as there is room.

    Raises:
        OSError: the folder for temporary files (TMPDIR) is full, or there is none.
    """
    with tempfile.TemporaryFile() as file:
        write(file)
        file.flush()
        if not file.tell():
            return pa.py_buffer(b"")
        return pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def on_disk_if_it_can(write: Write) -> pa.Buffer:
    """On disk, or in memory where the disk does not take it."""
    try:
        return on_disk(write)
    except OSError as error:
        logger.warning("scratch.full folder=%s error=%s", tempfile.gettempdir(), error)
        return in_memory(write)
