"""Decoding in a child process that may die: so the last pass turns an image that crashes into one failed row."""

import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

from pipeline.decode import DecodedImage, FailedImage, SizePolicy, decode_image
from pipeline.errors import ErrorCode, Failure

DECODE_TIMEOUT_S = 120.0
_ROOT = Path(__file__).resolve().parent.parent
_LENGTH_BYTES = 8
_STDERR = 2


class IsolatedDecoder:
    """A child process that decodes one image at a time; a new one takes its place when it dies."""

    def __init__(self, timeout_s: float = DECODE_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._child: _Child | None = None

    def decode(self, data: bytes, policy: SizePolicy) -> DecodedImage | FailedImage:
        """What `decode_image` gives; a child that dies or takes too long is `decode.crashed`."""
        if self._child is not None and self._child.process.poll() is not None:
            self.close()  # it died between two images, which is no fault of this one
        child = self._child = self._child or _Child()
        late = threading.Event()
        timer = threading.Timer(self._timeout_s, _kill, (child.process, late))
        timer.start()
        try:
            _send(child.requests, (data, policy))
            answer = _receive(child.answers)
        except OSError:
            answer = None
        finally:
            timer.cancel()
            timer.join()
        if answer is None or late.is_set():
            self.close()
        if answer is not None:
            return answer
        if late.is_set():
            message = f"decoding did not end within {self._timeout_s:g} s"
        else:
            message = f"decoding ended its process with status {child.process.returncode}"
        return FailedImage(failure=Failure(ErrorCode.DECODE_CRASHED, message))

    def close(self) -> None:
        """Ends the child."""
        if self._child is not None:
            self._child.close()
            self._child = None


class _Child:
    """The process, and its two pipes. It answers on a pipe of its own: any library may print to stdout, at any time."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        read_end, write_end = os.pipe()
        self.answers: IO[bytes] = os.fdopen(read_end, "rb", buffering=0)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"from pipeline.isolation import serve; serve({write_end})"],
                stdin=subprocess.PIPE,
                stdout=_STDERR,
                env={**os.environ, "PYTHONPATH": path},
                bufsize=0,
                pass_fds=(write_end,),
            )
        finally:
            os.close(write_end)  # so that the end of the child is the end of its answers
        assert self.process.stdin is not None
        self.requests: IO[bytes] = self.process.stdin

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()
        self.requests.close()
        self.answers.close()


def serve(answers: int) -> None:
    """The child: answers on a pipe until its input ends.

    Args:
        answers: file descriptor.
    """
    with os.fdopen(answers, "wb") as pipe:
        while (request := _receive(sys.stdin.buffer)) is not None:
            _send(pipe, decode_image(*request))


def _kill(process: subprocess.Popen, late: threading.Event) -> None:
    late.set()
    process.kill()


def _send(pipe: IO[bytes], message: object) -> None:
    body = memoryview(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))
    for part in (memoryview(len(body).to_bytes(_LENGTH_BYTES, "little")), body):
        while part:
            part = part[pipe.write(part) or 0 :]
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    """The next message; None at the end of the pipe, also in the middle of a message."""
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
