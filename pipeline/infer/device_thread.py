"""The thread that owns an accelerator: the thread submits new work before it waits for the work that is under way."""

import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

Wait = Callable[[], Any]
"""Waits for work that was submitted to the accelerator, and returns its result."""


class DeviceThread:
    """Does all work in one thread, in the order in which the work arrives.

    Attributes:
        ahead: Number of pieces of work that may be under way while the thread submits another piece; with 0, each piece
            ends before the next piece begins. If no more work has arrived, the thread waits for the oldest piece at
            once.
    """

    def __init__(self) -> None:
        """Starts the thread, which ends with the process."""
        self.ahead = 0
        self._coming: queue.SimpleQueue[tuple[Callable[[], Wait], Future[Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="device", daemon=True).start()

    def run(self, submit: Callable[[], Wait]) -> Any:
        """Runs work in the device's thread and returns the result; any other thread may call this, and waits.

        Raises:
            BaseException: The exception that the work raised. Other work goes on.
        """
        result: Future[Any] = Future()
        self._coming.put((submit, result))
        return result.result()

    def _serve(self) -> None:
        under_way: deque[tuple[Wait, Future[Any]]] = deque()
        while True:
            has_come = self._submit_next(under_way)
            if not has_come or len(under_way) > self.ahead:
                _settle(*under_way.popleft())

    def _submit_next(self, under_way: deque[tuple[Wait, Future[Any]]]) -> bool:
        """Submits the next work; returns False if no work has arrived. Waits for new work if no work is under way."""
        try:
            submit, result = self._coming.get(block=not under_way)
        except queue.Empty:
            return False
        try:
            under_way.append((submit(), result))
        except BaseException as error:
            result.set_exception(error)
        finally:
            # The result holds the error, and the frames of the error would hold these variables.
            del submit, result
        return True


def _settle(wait: Wait, result: Future[Any]) -> None:
    try:
        result.set_result(wait())
    except BaseException as error:
        result.set_exception(error)
    finally:
        del wait, result
