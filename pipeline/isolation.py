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


class IsolatedDecoder:
    """A child process that decodes one image at a time; a new one takes its place when it dies."""

    def __init__(self, timeout_s: float = DECODE_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._child: subprocess.Popen | None = None

    def decode(self, data: bytes, policy: SizePolicy) -> DecodedImage | FailedImage:
        """What `decode_image` gives; a child that dies or takes too long is `decode.crashed`."""
        child = self._child = self._child or _start()
        assert child.stdin is not None and child.stdout is not None
        late = threading.Event()
        timer = threading.Timer(self._timeout_s, _kill, (child, late))
        timer.start()
        try:
            _send(child.stdin, (data, policy))
            answer = _receive(child.stdout)
        except OSError:
            answer = None
        finally:
            timer.cancel()
        if answer is not None:
            return answer
        self.close()
        if late.is_set():
            message = f"decoding did not end within {self._timeout_s:g} s"
        else:
            message = f"decoding ended its process with status {child.returncode}"
        return FailedImage(failure=Failure(ErrorCode.DECODE_CRASHED, message))

    def close(self) -> None:
        """Ends the child."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    pipe.close()
            self._child = None


def _start() -> subprocess.Popen:
    path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-c", "from pipeline.isolation import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        bufsize=0,
    )


def serve() -> None:
    """The child: answers until its input ends. Whatever a library prints goes to stderr, not among the answers."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    while (request := _receive(sys.stdin.buffer)) is not None:
        _send(answers, decode_image(*request))


def _kill(child: subprocess.Popen, late: threading.Event) -> None:
    late.set()
    child.kill()


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
