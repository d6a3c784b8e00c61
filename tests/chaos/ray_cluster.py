"""A Ray cluster of nodes that may be killed, and a look at their processes; no other process is touched."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

NUM_OTHERS = 2
"""Nodes beside the head, where a drill asks for them."""

_READY = "Ray runtime started."
_START_S = 120.0
_OBJECT_STORE_BYTES = 200 * 2**20
_LOOK_EVERY_S = 0.2


class Node:
    """One node: `ray start --block` and what it starts, in a session of its own."""

    def __init__(self, arguments: list[str], env: dict[str, str], log: Path) -> None:
        """Returns when the node is up.

        Raises:
            RuntimeError: it is not.
        """
        ray = Path(sys.executable).parent / "ray"
        command = [str(ray), "start", "--block", f"--object-store-memory={_OBJECT_STORE_BYTES}", *arguments]
        env = {**env, "PATH": f"{ray.parent}{os.pathsep}{env['PATH']}"}
        with log.open("wb") as file:
            self._process = subprocess.Popen(command, env=env, stdout=file, stderr=file, start_new_session=True)
        deadline = time.monotonic() + _START_S
        while _READY not in log.read_text():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"a Ray node did not start: {log.read_text()}")
            time.sleep(0.1)

    @property
    def is_up(self) -> bool:
        """True until it is killed, or ends by itself."""
        return self._process.poll() is None

    def processes(self) -> list[psutil.Process]:
        """The node's processes, its workers included."""
        try:
            return psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """Kills everything at once, as if the machine were gone."""
        # Stopped first, so that none starts another meanwhile.
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGSTOP)
        found = self.processes()
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class RayCluster:
    """A head of two CPUs, and for a while two more nodes of one each."""

    def __init__(self, env: dict[str, str], folder: Path, head_flags: Sequence[str] = ()) -> None:
        """Returns when the head is up; the flags are those of `ray start`."""
        # Else its workers yield to whatever else the machine does, and a busy machine is too slow for its start.
        self._env = {**env, "RAY_worker_niceness": "0", "RAY_raylet_start_wait_time_s": "60"}
        self._folder = folder
        # Paths of sockets are short.
        self._temp = tempfile.TemporaryDirectory(prefix="rc-", ignore_cleanup_errors=True)
        self._head, self.address = self._start_head(head_flags)
        self._others: list[Node] = []
        self._num_started = 0
        # Process numbers of the head's processes and of the others', and when they were looked up.
        self._pids: tuple[list[int], list[int]] = [], []
        self._looked_at = float("-inf")

    def _start_head(self, flags: Sequence[str]) -> tuple[Node, str]:
        """The head and its address; a start that failed is tried again, on another port."""
        for attempts_left in (2, 1, 0):
            port, log = _free_port(), self._folder / f"head-{attempts_left}.log"
            arguments = ["--head", "--num-cpus=2", f"--port={port}", "--include-dashboard=false"]
            arguments += ["--disable-usage-stats", f"--temp-dir={self._temp.name}", *flags]
            try:
                node = Node(arguments, self._env, log)
            except RuntimeError:
                if not attempts_left:
                    raise
                continue
            started = re.search(r"--address='([^']+)'", log.read_text())
            return node, started[1] if started else f"127.0.0.1:{port}"
        raise AssertionError("unreachable")

    def start_others(self) -> None:
        """Starts two more nodes, one after the other: of two that start at once on a machine, one may never come up."""
        assert not self._others
        for _ in range(NUM_OTHERS):
            self.add("--num-cpus=1")

    def add(self, *flags: str) -> Node:
        """Starts one more node; the flags are those of `ray start`."""
        self._num_started += 1
        log = self._folder / f"node-{self._num_started}.log"
        self._others.append(Node([f"--address={self.address}", "--disable-usage-stats", *flags], self._env, log))
        return self._others[-1]

    @property
    def head(self) -> Node:
        """The node that all others come to."""
        return self._head

    @property
    def others(self) -> tuple[Node, ...]:
        """The nodes beside the head, in the order of their start."""
        return tuple(self._others)

    @property
    def num_others(self) -> int:
        """How many nodes are up beside the head."""
        return sum(node.is_up for node in self._others)

    def kill_node(self, pid: int | None) -> None:
        """Kills the node beside the head that has this process, or one of them if none has; the rest go on."""
        having = [node for node in self._others if pid in [process.pid for process in node.processes()]]
        node = (having or self._others)[0]
        self._others.remove(node)
        node.kill()

    def kill_others(self) -> None:
        """Kills all nodes but the head."""
        while self._others:
            self._others.pop().kill()

    def find(self, title: str, *, beside_head: bool = False) -> list[int]:
        """Process numbers of the workers whose title, as `ray::CollectorActor.take`, matches a pattern.

        It is quick, so that one may ask until a task is seen at work; a process counts from some time after its start.

        Args:
            beside_head: only on the other nodes.
        """
        now = time.monotonic()
        if now - self._looked_at > _LOOK_EVERY_S:
            others = [process.pid for node in self._others for process in node.processes()]
            self._pids = [process.pid for process in self._head.processes()], others
            self._looked_at = now
        on_head, on_others = self._pids
        return [pid for pid in [*([] if beside_head else on_head), *on_others] if re.match(title, _title(pid))]

    def kill(self, pid: int) -> None:
        """Kills a process that was found here."""
        self.signal(pid, signal.SIGKILL)

    def signal(self, pid: int, number: int) -> None:
        """Sends a signal to a process that was found here; nothing happens if it is gone."""
        if _title(pid).startswith("ray::"):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def close(self) -> None:
        """Ends all nodes."""
        self.kill_others()
        self._head.kill()
        self._temp.cleanup()


@contextmanager
def running_cluster(env: dict[str, str], folder: Path, head_flags: Sequence[str] = ()) -> Iterator[RayCluster]:
    """A cluster whose processes have this environment; it ends with the block."""
    cluster = RayCluster(env, folder, head_flags)
    try:
        yield cluster
    finally:
        cluster.close()


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode(errors="replace")
    except OSError:
        return ""


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
