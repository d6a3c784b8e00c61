"""A process that has imported the whole job, and forks drivers that need not.

    python -m tests.chaos.driver_server

For each line on stdin, the address of a listening socket, it forks a driver that connects there, and prints its process
number. A driver runs one command after another, and joins the cluster once, with the first of them that needs it. It
ends when the socket is closed; all end with this process, and this one with its parent.
"""

import ctypes
import gc
import logging
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Client
from pathlib import Path

import boto3  # noqa: F401, imported for the drivers
import ray.data  # noqa: F401, imported for the drivers

from jobs.classify import classify
from jobs.cli.command import run_command
from pipeline.cluster.cluster import Cluster, joined_cluster
from pipeline.cluster.config import ComputeConfig
from pipeline.run import run
from pipeline.store.config import StoreConfig

# How long a request may hang: the drills wait for that, again and again.
TIMEOUT_S = 4.0


def main() -> None:
    """Forks drivers until stdin is closed."""
    _die_with_parent()
    # Nobody waits for them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _die_with_parent()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setpgid(0, 0)
            _drive(line.strip())
            os._exit(0)
        print(pid, flush=True)


def _drive(address: str) -> None:
    StoreConfig.__init__.__kwdefaults__["timeout_s"] = TIMEOUT_S
    with Client(address) as drill, ExitStack() as until_closed:
        clusters: list[Cluster] = []

        @contextmanager
        def joined_once(config: ComputeConfig, local_paths: Iterable[Path]) -> Iterator[Cluster]:
            if not clusters:
                clusters.append(until_closed.enter_context(joined_cluster(config, local_paths)))
            yield clusters[0]

        run.joined_cluster = joined_once
        while True:
            try:
                arguments, log = drill.recv()
            except EOFError:
                return
            _log_to(Path(log))
            code = run_command(classify, arguments)
            sys.stdout.flush()
            drill.send(code)


def _log_to(path: Path) -> None:
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for handler in logging.getLogger().handlers:
        handler.flush()


def _die_with_parent() -> None:
    # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


if __name__ == "__main__":
    main()
