"""Drivers of the job: real processes that run the command, and that one may kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: exit code; None if its process died.
        summary: its last line; empty if it died.
        log: all that it said.
    """

    code: int | None
    summary: dict[str, Any]
    log: Path


class Driver:
    """One process that runs commands, one at a time; the next one is as quick as the cluster is warm."""

    def __init__(self, pid: int, connection: Connection, folder: Path) -> None:
        self.pid = pid
        self._connection = connection
        self._folder = folder
        self._num_logs = 0

    def start(self, arguments: Sequence[object]) -> None:
        """Starts a command."""
        self._num_logs += 1
        self._log = self._folder / f"driver-{self.pid}-{self._num_logs}.log"
        self._connection.send(([str(argument) for argument in arguments], str(self._log)))

    def wait(self, timeout_s: float = TIMEOUT_S) -> Ended:
        """How the command ended.

        Raises:
            TimeoutError: it has not.
        """
        try:
            if not self._connection.poll(timeout_s):
                raise TimeoutError(f"the command has not ended in {timeout_s:.0f} s, see {self._log}")
            code = self._connection.recv()
        except (EOFError, ConnectionResetError):
            return Ended(None, {}, self._log)
        return Ended(code, json.loads(self._log.read_text().splitlines()[-1]), self._log)

    def signal(self, number: int) -> None:
        """Sends a signal to the process; nothing happens if it is gone."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def close(self) -> None:
        """Ends the process: at once if it is at work, else in order."""
        self._connection.close()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and Path(f"/proc/{self.pid}").exists():
            time.sleep(0.05)
        self.signal(signal.SIGKILL)


class Drivers:
    """Makes drivers, and keeps one whose last command ended well for the next."""

    def __init__(self, server: "subprocess.Popen[str]", folder: Path) -> None:
        self._server, self._folder = server, folder
        self._warm: Driver | None = None
        self._num_made = 0

    def take(self) -> Driver:
        """A driver that nobody uses."""
        warm, self._warm = self._warm, None
        return warm or self.make()

    def give_back(self, driver: Driver) -> None:
        """Takes a driver whose command has ended with 0."""
        if self._warm is not None:
            driver.close()
        else:
            self._warm = driver

    def make(self) -> Driver:
        """A new driver."""
        self._num_made += 1
        address = str(self._folder / f"socket-{self._num_made}")
        with Listener(address, family="AF_UNIX") as listener:
            assert self._server.stdin is not None
            assert self._server.stdout is not None
            print(address, file=self._server.stdin, flush=True)
            pid = int(self._server.stdout.readline())
            return Driver(pid, listener.accept(), self._folder)


@contextmanager
def running_drivers(env: dict[str, str], folder: Path) -> Iterator[Drivers]:
    """Drivers that have this environment, and end with the block; their logs are in the folder."""
    command = [sys.executable, "-m", "tests.chaos.driver_server"]
    with (folder / "driver-server.log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        yield Drivers(server, folder)
    finally:
        # Its drivers die with it.
        server.kill()
        server.communicate()
