"""glibc's allocator, set for a process that frees and takes large blocks all the time."""

import ctypes
import logging
import sys

logger = logging.getLogger(__name__)

# Parameter numbers of mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEEP_BYTES = 1 << 30


def tune_allocator() -> None:
    """Makes glibc keep freed blocks below 1 GiB instead of handing them back to the kernel at once.

    Activations of one pack are freed and taken again by the next; by default each of them is a fresh mapping, and
    every page of it faults. Measured on PVTv2: 1.1 to 1.6 times faster. Elsewhere than on glibc nothing is changed.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return
    for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
        if libc.mallopt(parameter, _KEEP_BYTES) != 1:
            logger.warning("allocator.not_tuned parameter=%d", parameter)
