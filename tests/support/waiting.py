"""Waiting for what other threads and processes do."""

import time
from collections.abc import Callable

PATIENCE_S = 90.0


def eventually(condition: Callable[[], object]) -> None:
    """Returns when the condition is true.

    Raises:
        AssertionError: it did not come true in `PATIENCE_S`.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
