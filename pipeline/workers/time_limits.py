"""Time limits of work; a process over its limit is ended. The limits are generous: they only stop work that hangs.

Ray retries a chunk whose process was ended, then drops the chunk. The last pass runs the chunk again, with a child
process and a time limit for each image. So an image whose work never ends costs one row, not the run.
"""

import faulthandler
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from model.network.config import PVTv2Config
from model.network.cost import count_macs

DECODE_IMAGE_S = 120.0
INFER_IMAGE_S = 120.0
CHUNK_S = 300.0
# Multiply-accumulates per second, far fewer than any device does: one core of an old machine does ten times as many.
_SLOWEST_MACS_PER_S = {"cpu": 4e9, "cuda": 2e11}


def compute_s(network: PVTv2Config, sizes: Iterable[tuple[int, int]], device: str) -> float:
    """Returns the seconds that a very slow device takes to put images through the network.

    Args:
        network: Architecture of the network.
        sizes: (height, width) of each image, in pixels.
        device: `cpu` or `cuda`.
    """
    macs = sum(count_macs(network, height, width) for height, width in sizes)
    return macs / _SLOWEST_MACS_PER_S[device]


@contextmanager
def given_up_after(seconds: float) -> Iterator[None]:
    """Ends this process if the block takes longer than `seconds`, and prints the traceback to stderr.

    A thread without Python code ends the process, because work that hangs in a C library may never let Python run.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
