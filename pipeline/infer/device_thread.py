"""The thread to which an accelerator belongs: it hands over the next work before it waits for the last."""

import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

Wait = Callable[[], Any]
"""Gives the result of work that was handed to the accelerator, when it is there."""


class DeviceThread:
    """Does all work in one thread and in the order in which it came.

    Attributes:
        ahead: works that are handed over before the first of those under way is waited for; with 0, each is done before
            the next begins. Where nothing more has come, what is under way is waited for at once.
    """

    def __init__(self) -> None:
        """Starts the thread, which ends with the process."""
        self.ahead = 0
        self._coming: queue.SimpleQueue[tuple[Callable[[], Wait], Future[Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="device", daemon=True).start()

    def run(self, submit: Callable[[], Wait]) -> Any:
        """Hands work over and gives its result; called in any thread, which waits.

        Raises:
            BaseException: what the work raises. Other work goes on.
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
        """Whether anything has come; waits for it if nothing is under way."""
        try:
            submit, result = self._coming.get(block=not under_way)
        except queue.Empty:
            return False
        try:
            under_way.append((submit(), result))
        except BaseException as error:
            result.set_exception(error)
        finally:
            # The error's frames hold what is named here, and the result holds the error.
            del submit, result
        return True


def _settle(wait: Wait, result: Future[Any]) -> None:
    try:
        result.set_result(wait())
    except BaseException as error:
        result.set_exception(error)
    finally:
        del wait, result
