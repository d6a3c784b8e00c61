"""Runs work in child processes, so that in the last pass an image that crashes its process becomes one failed row.

A child answers one request at a time; when a child dies, a new child takes its place. A request counts as the cause
of the death only if a second, fresh child dies of the same request, because the system may have killed the first child
to free memory for other processes.
"""

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from pipeline.chunks.bugs import bug_in, explain
from pipeline.workers.time_limits import given_up_after

START_TIMEOUT_S = 300.0
_ATTEMPTS = 2
# A child that outlives its parent ends itself this many seconds after its parent would have ended it.
_ORPHAN_GRACE_S = 30.0
_ROOT = Path(__file__).resolve().parent.parent.parent
_LENGTH_BYTES = 8
_PR_SET_PDEATHSIG = 1
_STDERR = 2
_READY = "ready"


class ChildError(RuntimeError):
    """A child process could not be started, or failed at a request that holds no image."""


@dataclass(frozen=True, slots=True)
class _Raised:
    """The last answer of a child that ends with an exception; `error` describes the exception (`bugs.explain`)."""

    error: str


@dataclass(frozen=True, slots=True)
class Crash:
    """The end of a child process that did not answer a request.

    Attributes:
        how: Predicate of a sentence, such as "ended its process with status -11".
        is_late: True if the request took too long.
        error: Description of the exception that ended the process (`bugs.explain`); None if no exception ended
            the process.
    """

    how: str
    is_late: bool = False
    error: str | None = None

    def explain(self, work: str) -> str:
        """Returns why some work failed, as the message of a row; a message about a bug begins with file and line.

        Args:
            work: Subject of the sentence, such as "decoding".
        """
        return f"{self.error} ({work})" if bug_in(self.error) else f"{work} {self.how}"

    def __str__(self) -> str:
        return self.how if self.error is None else f"{self.how}: {self.error}"


class IsolatedService:
    """A child process that runs the service of a module; the first request starts the process."""

    def __init__(self, module: str, settings: object = None) -> None:
        """Starts no process yet.

        Args:
            module: Name of a module whose `start_service(settings)` returns a function from request to answer.
            settings: Argument of `start_service`; settings and requests are pickled for the child.
        """
        self._module, self._settings = module, settings
        self._child: _Child | None = None

    def ask(self, request: object, timeout_s: float) -> Any:
        """Returns the service's answer; a `Crash` if two children died of the request, or a child took too long.

        Raises:
            ChildError: No child could be started.
        """
        if self._child is not None and self._child.process.poll() is not None:
            self.close()  # The child died between two requests, so this request is not the cause.
        for _ in range(_ATTEMPTS):
            child = self._child = self._child or self._start()
            answer = child.ask((request, timeout_s), timeout_s)
            if isinstance(answer, Crash) or child.was_late:
                self.close()
            if not isinstance(answer, Crash) or answer.is_late:
                break
        return answer

    def close(self) -> None:
        """Ends the child process."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def _start(self) -> "_Child":
        for _ in range(_ATTEMPTS):
            child = _Child(self._module)
            answer = child.ask(self._settings, START_TIMEOUT_S)
            if answer == _READY:
                return child
            child.close()
        raise ChildError(f"the child process of {self._module} did not start: it {answer}")


class _Child:
    """A child process and its two pipes. Answers have a separate pipe, because any library may print to stdout."""

    def __init__(self, module: str) -> None:
        path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        read_end, write_end = os.pipe()
        self.answers: IO[bytes] = os.fdopen(read_end, "rb", buffering=0)
        self.was_late = False
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"from pipeline.workers.isolation import serve; serve({write_end}, {module!r})"],
                stdin=subprocess.PIPE,
                stdout=_STDERR,
                env={**os.environ, "PYTHONPATH": path},
                bufsize=0,
                pass_fds=(write_end,),
            )
        finally:
            os.close(write_end)  # The pipe of answers now ends when the child does.
        assert self.process.stdin is not None
        self.requests: IO[bytes] = self.process.stdin

    def ask(self, request: object, timeout_s: float) -> Any:
        """Returns the answer to one request; a `Crash` if the child dies or takes too long.

        An answer that arrives just when the time is over still counts.
        """
        timer = threading.Timer(timeout_s, self._kill)
        timer.start()
        try:
            answer = self._exchange(request)
            if answer is None or isinstance(answer, _Raised):
                # The time limit covers the end of the process too: a thread of a library may keep the process alive.
                self.process.wait()
        finally:
            timer.cancel()
            timer.join()
        if isinstance(answer, _Raised):
            return Crash(f"ended its process with status {self.process.returncode}", error=answer.error)
        if answer is not None:
            return answer
        if self.was_late:
            return Crash(f"did not end within {timeout_s:g} s", is_late=True)
        return Crash(f"ended its process with status {self.process.returncode}")

    def close(self) -> None:
        """Ends the process and closes both pipes."""
        self.process.kill()
        self.process.wait()
        self.requests.close()
        self.answers.close()

    def _exchange(self, request: object) -> Any:
        """Returns the answer of the child; None if a pipe broke."""
        try:
            _send(self.requests, request)
            return _receive(self.answers)
        except OSError:
            return None

    def _kill(self) -> None:
        self.was_late = True
        self.process.kill()


def serve(answers: int, module: str) -> None:
    """Runs in the child: starts the service of a module and answers requests until the input ends.

    Args:
        answers: File descriptor of the pipe for answers.
        module: Name of the module, which has the function `start_service`.
    """
    _die_with_parent()
    requests = sys.stdin.buffer
    with os.fdopen(answers, "wb") as pipe:
        try:
            start_service: Callable[[Any], Callable[[Any], Any]] = import_module(module).start_service
            service = start_service(_receive(requests))
            _send(pipe, _READY)
            while (message := _receive(requests)) is not None:
                request, timeout_s = message
                with given_up_after(timeout_s + _ORPHAN_GRACE_S):
                    answer = service(request)
                _send(pipe, answer)
        except Exception as error:
            _send(pipe, _Raised(explain(error)))
            raise


def _die_with_parent() -> None:
    """Makes Linux kill this process when its parent ends; else a child that hangs would keep its memory and GPU."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _send(pipe: IO[bytes], message: object) -> None:
    body = memoryview(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))
    for part in (memoryview(len(body).to_bytes(_LENGTH_BYTES, "little")), body):
        while part:
            part = part[pipe.write(part) or 0 :]
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    """Returns the next message; None if the pipe ends before the message is complete."""
    length = _read_exactly(pipe, _LENGTH_BYTES)
    body = None if length is None else _read_exactly(pipe, int.from_bytes(length, "little"))
    return None if body is None else pickle.loads(body)


def _read_exactly(pipe: IO[bytes], count: int) -> bytes | None:
    parts = []
    while count > 0:
        part = pipe.read(count)
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
