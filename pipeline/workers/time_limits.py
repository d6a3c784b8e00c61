"""How long a piece of work may take before its process is given up; generous, since it only has to be finite.

A chunk whose process is given up is retried by Ray, then dropped, and done in the last pass, where each image has a
child process and a time of its own. So an image that never ends costs one row, not the run.
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
# Far slower than any device that is at work: one core of an old machine does ten times as much.
_SLOWEST_MACS_PER_S = {"cpu": 4e9, "cuda": 2e11}


def compute_s(network: PVTv2Config, sizes: Iterable[tuple[int, int]], device: str) -> float:
    """Seconds in which a very slow device has put images of some sizes (height, width) through the network."""
    macs = sum(count_macs(network, height, width) for height, width in sizes)
    return macs / _SLOWEST_MACS_PER_S[device]


@contextmanager
def given_up_after(seconds: float) -> Iterator[None]:
    """Ends this process if the block takes longer, and says on stderr where it was.

    Done by a thread that needs nothing of Python, for work that hangs in a C library and never lets Python run.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
