"""A Ray head of two CPUs, started as on a real machine."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Head:
    """Where it answers: drivers that join it, jobs that are submitted, and who asks how the node is."""

    address: str
    dashboard: str
    agent: str


@contextmanager
def running_head(folder: Path, job_env: Mapping[str, str]) -> Iterator[Head]:
    """One that runs until the block ends; its log is in the folder."""
    port, dashboard_port, agent_port = _free_port(), _free_port(), _free_port()
    command = [
        BIN / "ray", "start", "--head", "--block", "--num-cpus=2", f"--port={port}", "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard_port}", "--disable-usage-stats", f"--object-store-memory={512 * 2**20}",
        f"--dashboard-agent-listen-port={agent_port}",  # another Ray's agent may have the usual one
    ]  # fmt: skip
    env = {**job_env, "PATH": f"{BIN}{os.pathsep}{job_env['PATH']}"}
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=file, stderr=file, start_new_session=True)
    dashboard = f"http://127.0.0.1:{dashboard_port}"
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError), urllib.request.urlopen(f"{dashboard}/api/authentication_mode", timeout=2):
                if "--address='" in log.read_text():
                    break
            time.sleep(0.5)
        else:
            pytest.fail(log.read_text())
        yield Head(
            log.read_text().partition("--address='")[2].partition("'")[0], dashboard, f"http://127.0.0.1:{agent_port}"
        )
    finally:
        # Blocking, it ends what it started; what is left is ended with its process group.
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
