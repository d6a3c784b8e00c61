"""A run that loses one of two GPUs for good, goes on with one, and takes both again once another has come.

    python -m tests.chaos.fewer_gpus [FILE]

Ray's settings declare GPUs although the machine has none. The node is killed while both actors have begun a chunk, so
that the run cannot end before another actor takes that chunk. After that nothing is done until the node is replaced and
used. The result is JSON, which goes to FILE if that is given.
"""

import logging
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from pipeline.chunks.chunk import Chunk
from pipeline.cluster import capacity as room
from pipeline.decode.decode_chunk import decode_chunk
from pipeline.flow import run_pass as flow
from pipeline.flow.steps import ActorStep, Steps
from pipeline.infer.config import InferConfig
from pipeline.run import watch
from pipeline.run.execute import execute
from pipeline.run.ledger import Ledger
from tests.chaos.nodes import WAIT_S, OnCpu, environment, prepared, rows_of, tell, undisturbed, write_inputs
from tests.chaos.ray_cluster import RayCluster, running_cluster

QUIET_S = 3.0
WITH_GPU = ("--num-cpus=1", "--num-gpus=1")


@dataclass(frozen=True)
class HeldUp:
    """Makes the real step; in the first pass it waits for a loss, later for what is lost."""

    folder: Path

    def __call__(self, weights: memoryview | bytes, config: InferConfig) -> ActorStep:
        return HeldUpStep(OnCpu()(weights, config), self.folder)


class HeldUpStep:
    ahead = 0

    def __init__(self, step: ActorStep, folder: Path) -> None:
        self._step, self._folder = step, folder

    def unpack(self, chunk: Chunk) -> Any:
        return chunk.pass_number, self._step.unpack(chunk)

    def submit(self, unpacked: Any) -> Callable[[], Any]:
        pass_number, images = unpacked
        (self._folder / f"{pass_number}-{ray.get_runtime_context().get_node_id()}").touch()
        deadline = time.monotonic() + WAIT_S
        while not (self._folder / ("back" if pass_number > 1 else "lost")).exists():
            assert time.monotonic() < deadline, "nothing happened"
            time.sleep(0.05)
        return self._step.submit(images)

    def pack(self, computed: Any) -> Chunk:
        return self._step.pack(computed)


def main() -> int:
    """Runs it; 0 if all is as it should be."""
    # Of minutes in a real run, where nodes take their time to come and go.
    watch._QUIET_S, room._LOOK_EVERY_S = QUIET_S, 1.0
    # A chunk a block, of which there are more than one actor may have in its queue.
    flow.TARGET_BLOCK_BYTES = 1
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with tempfile.TemporaryDirectory(prefix="gpus-", ignore_cleanup_errors=True) as scratch:
        told = play(Path(scratch))
    tell(told)
    return 0 if told["is_exact"] else 1


def play(folder: Path) -> dict[str, Any]:
    """How many actors there were, one after the other, and what came of it."""
    begun = folder / "begun"
    begun.mkdir()
    write_inputs(folder)
    with environment(folder) as env, running_cluster(env, folder, ["--num-cpus=2"]) as cluster:
        first, second = cluster.add(*WITH_GPU), cluster.add(*WITH_GPU)
        with prepared(folder, cluster.address, num_actors=2) as (run, ledger):
            expected = undisturbed(run)
            actors: list[int] = []
            logging.getLogger("pipeline.run.watch").addHandler(Release(begun))
            ended = threading.Event()
            striking = threading.Thread(target=strike, args=(ledger, cluster, begun, actors, ended))
            striking.start()
            try:
                report = execute(run, ledger, lambda progress: None, Steps(decode=decode_chunk, infer=HeldUp(begun)))
            finally:
                ended.set()
                striking.join()
        assert first.is_up and not second.is_up
    return {
        "status": report.status, "actors": actors, "listed": report.run.listed,
        "rows": len(expected), "is_exact": rows_of(folder / "out") == expected,
    }  # fmt: skip


class Release(logging.Handler):
    """Lets the held actors go once the run has seen that the node is back, and gives up the pass for it."""

    def __init__(self, begun: Path) -> None:
        super().__init__()
        self._begun = begun

    def emit(self, record: logging.LogRecord) -> None:
        if "there again" in record.getMessage():
            (self._begun / "back").touch()


def strike(ledger: Ledger, cluster: RayCluster, begun: Path, actors: list[int], ended: threading.Event) -> None:
    """Kills a node once both actors have a chunk, and adds one once a single actor is held up."""
    while not ended.wait(0.2):
        if ledger.processors is not None and [ledger.processors.num_actors[1]] != actors[-1:]:
            actors.append(ledger.processors.num_actors[1])
        if len(list(begun.glob("1-*"))) == 2 and not (begun / "lost").exists():
            cluster.others[1].kill()
            (begun / "lost").touch()
        if actors == [2, 1] and list(begun.glob(f"{ledger.num_passes}-*")) and cluster.num_others == 1:
            cluster.add(*WITH_GPU)


if __name__ == "__main__":
    sys.exit(main())
