"""A run on nodes of different kinds, one of which is lost in the middle and replaced; the output describes it.

    python -m tests.chaos.three_nodes [FILE]

The head has no processors: it takes none of the steps, writing included. One node has processors and no GPU: it
decodes. One has a GPU and too few processors to decode beside its actor: it has the network. Ray's settings declare a
GPU although the node has none, so that the network computes on that node's processor. The node that decodes is killed
with all its processes when a part of the rows is published; another such node comes some seconds later, as it would
from an autoscaler. Until then the first node gets only a part of the work, so that it is always lost in the middle.

The cluster needs no token and is not on the loopback: a job refuses such a cluster unless its flags accept it.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.audit.__main__ import main as audit
from pipeline.chunks.chunk import Chunk
from pipeline.chunks.size_policy import SizePolicy
from pipeline.decode.decode_chunk import decode_chunk
from pipeline.flow.steps import Steps
from pipeline.run.execute import execute
from tests.chaos.nodes import (
    ROOT,
    ROWS_PER_FILE,
    WAIT_S,
    OnCpu,
    environment,
    prepared,
    rows_of,
    tell,
    undisturbed,
    write_inputs,
)
from tests.chaos.ray_cluster import Node, RayCluster, running_cluster

# Chunks that are decoded before the node is lost: of several tasks that have two each, one is done with them.
FIRST_CHUNKS = 6
REFUSED_S = 60.0
DECODING = ("--num-cpus=2",)
ON_GPU = ("--num-cpus=1", "--num-gpus=1")


@dataclass(frozen=True)
class HeldUp:
    """The real decoding; after the first chunks it waits for a file that says that the node is lost."""

    folder: Path

    def __call__(self, chunk: Chunk, sizes: SizePolicy, *, careful: bool = False) -> Chunk:
        deadline = time.monotonic() + WAIT_S
        (self.folder / f"{os.getpid()}-{uuid.uuid4().hex}").touch()
        while len(list(self.folder.iterdir())) > FIRST_CHUNKS and not (self.folder / "lost").exists():
            assert time.monotonic() < deadline, "the node was never lost"
            time.sleep(0.05)
        return decode_chunk(chunk, sizes, careful=careful)


class Nodes:
    """The cluster's nodes by their names, and which process was whose."""

    def __init__(self, cluster: RayCluster) -> None:
        self._cluster = cluster
        self.names: dict[str, Node] = {"head": cluster.head}
        self._names_by_pid: dict[int, str] = {}
        self.lost: str | None = None
        self.lost_at_rows = 0

    def add(self, name: str, *flags: str) -> None:
        self.names[name] = self._cluster.add(*flags)

    def look(self) -> None:
        """Notes whose the processes are that there are."""
        for name, node in list(self.names.items()):
            self._names_by_pid |= {process.pid: name for process in node.processes()}

    def watch(self, folder: Path, ended: threading.Event) -> None:
        """Kills the node that decodes once something is published, starts another, and looks on to the end."""
        while not ended.wait(0.3):
            self.look()
            files = list((folder / "out" / "data").glob("*.parquet"))
            if self.lost is None and files:
                lost_at = time.monotonic()
                self.lost, self.lost_at_rows = "decode", len(files) * ROWS_PER_FILE
                self.names["decode"].kill()
                (folder / "decoding" / "lost").touch()
                self.add("decode again", *DECODING)
                print(f"decode again: up after {time.monotonic() - lost_at:.0f} s", flush=True)

    def who(self, process: str) -> str:
        """The node of a process, which the report calls `<machine>/<pid>`."""
        return self._names_by_pid.get(int(process.rpartition("/")[2]), "unknown")


def main() -> int:
    """Runs it, tells it, and what came of it as JSON; 0 if all is as it should be."""
    with tempfile.TemporaryDirectory(prefix="nodes-", ignore_cleanup_errors=True) as scratch:
        told = play(Path(scratch))
    tell(told)
    return 0 if is_as_it_should_be(told) else 1


def is_as_it_should_be(told: Mapping[str, Any]) -> bool:
    """True if no row was lost, a node was in the middle of its work, each did what it is for, and no door is open."""
    done = told["done"]
    is_placed = set(done["compute"]) == {"gpu"} and set(done["decode"]) == {"decode", "decode again"}
    is_head_idle = not any("head" in images for images in done.values())
    is_in_the_middle = told["lost"] == "decode" and 0 < told["lost_at_rows"] < told["rows"]
    is_refused = told["refused"]["exit_code"] == 2 and "asks for no token" in told["refused"]["error"]
    # The report's sums; who did what is no account, and lacks what a collector on the lost node had not told yet.
    is_counted = told["status"] == "done" and told["listed"] == told["rows"]
    is_right = is_counted and told["is_exact"] and told["audit"] == 0
    return all((is_placed, is_head_idle, is_in_the_middle, is_right, is_refused))


def play(folder: Path) -> dict[str, Any]:
    """Who did what, who was lost, and what came of it."""
    write_inputs(folder)
    (folder / "decoding").mkdir()
    with environment(folder) as env, running_cluster(env, folder, ["--num-cpus=0"]) as cluster:
        nodes = Nodes(cluster)
        nodes.add("decode", *DECODING)
        nodes.add("gpu", *ON_GPU)
        print("nodes: head (no processors), decode (2 CPUs), gpu (1 CPU and 1 GPU)", flush=True)
        refused = refusal(folder, cluster.address)
        print(f"a job that is not told of an open cluster: exit {refused['exit_code']}, {refused['error']}", flush=True)
        with prepared(folder, cluster.address, num_actors=1) as (run, ledger):
            expected = undisturbed(run)
            ended = threading.Event()
            watching = threading.Thread(target=nodes.watch, args=(folder, ended))
            watching.start()
            try:
                steps = Steps(decode=HeldUp(folder / "decoding"), infer=OnCpu())
                report = execute(run, ledger, lambda progress: None, steps)
            finally:
                ended.set()
                watching.join()
    done: dict[str, Counter[str]] = {}
    for entry in report.to_dict()["processes"]:
        done.setdefault(entry["step"], Counter())[nodes.who(entry["process"])] += entry["images"]
    # The report lacks what a collector on the lost node had not told yet; each decoder has said when it began a chunk.
    done["decode"] = Counter(
        nodes.who(path.name.partition("-")[0]) for path in (folder / "decoding").iterdir() if path.name != "lost"
    )
    for step, images in done.items():
        print(
            f"{step}: "
            + ", ".join(
                f"{count} {'chunks begun' if step == 'decode' else 'images'} on {name}"
                for name, count in images.items()
            )
        )
    print(
        f"lost: {nodes.lost}, with all its processes, when {nodes.lost_at_rows} of {len(expected)} rows were published"
    )
    is_exact = rows_of(folder / "out") == expected
    print(f"rows: {'exactly' if is_exact else 'NOT'} those of an undisturbed run; {report.run.listed} in the account")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = audit(["--input", str(folder / "in"), "--output", str(folder / "out")])
    print(f"audit: {said.getvalue().strip().splitlines()[-1]}", flush=True)
    return {
        "done": done, "lost": nodes.lost, "lost_at_rows": nodes.lost_at_rows, "rows": len(expected),
        "status": report.status, "listed": report.run.listed, "is_exact": is_exact, "audit": code, "refused": refused,
    }  # fmt: skip


def refusal(folder: Path, address: str) -> dict[str, Any]:
    """How a job ends that shows its token to the cluster, which asks for none."""
    command = [sys.executable, str(ROOT / "jobs" / "classify.py"), "--ray-address", address]
    for flag, name in (("--input", "in"), ("--weights", "weights"), ("--output", "refused")):
        command += [flag, str(folder / name)]
    env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 32}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=REFUSED_S)
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    sys.exit(main())
