"""Time limits after which the process of a piece of work is ended; generous, since they only have to be finite.

Ray retries a chunk whose process was ended, then drops it. The last pass does it again, with a child process and a time
limit for each image. So an image whose work never ends costs one row, not the run.
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
# Far slower than any device: one core of an old machine does ten times as much.
_SLOWEST_MACS_PER_S = {"cpu": 4e9, "cuda": 2e11}


def compute_s(network: PVTv2Config, sizes: Iterable[tuple[int, int]], device: str) -> float:
    """Returns the seconds that a very slow device takes to put images through the network.

    Args:
        network: The network.
        sizes: (height, width) of each image, in pixels.
        device: `cpu` or `cuda`.
    """
    macs = sum(count_macs(network, height, width) for height, width in sizes)
    return macs / _SLOWEST_MACS_PER_S[device]


@contextmanager
def given_up_after(seconds: float) -> Iterator[None]:
    """Ends this process if the block takes longer than some seconds, and prints its traceback to stderr.

    A thread without Python code does so, because work that hangs in a C library may never let Python run.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
