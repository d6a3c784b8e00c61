"""Runs of a few tars on a cluster whose nodes are of different kinds, on one machine; and what their rows should be."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from model.checkpoints.load import save_checkpoint
from model.checkpoints.random_weights import random_weights
from model.network.config import PVTv2Config
from pipeline.chunks.chunk import Chunk
from pipeline.chunks.size_policy import SizePolicy
from pipeline.chunks.task import Classify
from pipeline.cluster.config import ComputeConfig
from pipeline.config.job_config import JobConfig
from pipeline.decode.decode_chunk import decode_chunk
from pipeline.flow.steps import ActorStep
from pipeline.infer.config import InferConfig
from pipeline.inputs.config import InputConfig
from pipeline.lease.lease import Lease
from pipeline.output.config import OutputConfig
from pipeline.read.read_shard import read_shard
from pipeline.run.ledger import Ledger
from pipeline.run.prepare import prepare
from pipeline.run.run import Run
from pipeline.run.step_settings import infer_config, read_config
from tests.jobs.conftest import LABELS, photo

ROOT = Path(__file__).resolve().parents[2]
NUM_TARS, IMAGES_PER_TAR, ROWS_PER_FILE = 6, 16, 8
NUM_ROWS = NUM_TARS * IMAGES_PER_TAR
# How long a step may be held up until what it waits for has happened.
WAIT_S = 90.0
# The head notices in seconds that a node is gone: nobody listens where it was.
_QUICK = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "4"}
Rows = dict[str, tuple[str, str | None]]


@contextlib.contextmanager
def environment(folder: Path) -> Iterator[dict[str, str]]:
    """That of the nodes, which this process has in the block; the steps of tests are found on every node."""
    before = dict(os.environ)
    kept = {name: value for name, value in before.items() if not name.startswith(("RAY_", "AWS_"))}
    os.environ.clear()
    os.environ |= {**kept, "RAY_AUTH_MODE": "disabled", "HOME": str(folder), "PYTHONPATH": str(ROOT), **_QUICK}
    try:
        yield dict(os.environ)
    finally:
        os.environ.clear()
        os.environ |= before


@dataclass(frozen=True)
class OnCpu:
    """Makes the real step, on a node whose GPU is made up."""

    def __call__(self, weights: memoryview | bytes, config: InferConfig) -> ActorStep:
        from pipeline.infer.infer_step import InferStep

        return InferStep(weights, replace(config, device="cpu"))


def write_inputs(folder: Path) -> None:
    config = PVTv2Config(
        embed_dims=(8, 16, 40, 64), depths=(1, 1, 1, 1), num_heads=(1, 2, 5, 8), mlp_ratios=(2, 2, 2, 2),
        sr_ratios=(8, 4, 2, 1), num_classes=10,
    )  # fmt: skip
    save_checkpoint(random_weights(config, 0), config, LABELS, folder / "weights")
    (folder / "in").mkdir()
    for number in range(NUM_TARS):
        with tarfile.open(folder / "in" / f"{number}.tar", "w") as tar:
            for index in range(IMAGES_PER_TAR):
                data = photo(number * IMAGES_PER_TAR + index) if index else b"no image"
                info = tarfile.TarInfo(f"{index:02d}.png")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def tell(told: Mapping[str, Any]) -> None:
    """Writes what came of a run as JSON into the file that the command line names, else prints it.

    Ray prints what its workers say at any time, also behind a last line.
    """
    if sys.argv[1:]:
        Path(sys.argv[1]).write_text(json.dumps(told))
    else:
        print(json.dumps(told))


def told_by(module: str, file: Path, timeout_s: float) -> tuple[dict[str, Any], "subprocess.CompletedProcess[str]"]:
    """What a module that calls `tell` tells in a process of its own, and that process."""
    command = [sys.executable, "-m", module, str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s)
    assert file.exists(), done.stdout + done.stderr
    return json.loads(file.read_text()), done


@contextlib.contextmanager
def prepared(folder: Path, address: str, num_actors: int) -> Iterator[tuple[Run, Ledger]]:
    """A run over the inputs in a folder, on actors that each take a GPU, with its lease; and its ledger."""
    config = JobConfig(
        task=Classify(top_k=1),
        input=InputConfig(uris=(str(folder / "in"),)),
        output=OutputConfig(uri=str(folder / "out"), rows_per_file=ROWS_PER_FILE),
        weights=str(folder / "weights"),
        precision="fp32",
        compute=ComputeConfig(
            device="cuda", num_actors=(num_actors, num_actors), ray_address=address, allow_no_token=True
        ),
        run_id="nodes",
    )  # fmt: skip
    with Lease(config.output.folder, "nodes") as lease:
        yield prepare(config, time.time(), lease)


def undisturbed(run: Run) -> Rows:
    """Image id -> status and label, by the same steps in this process alone."""
    step = OnCpu()(run.checkpoint.files.weights, infer_config(run, "cpu"))
    rows: Rows = {}
    for shard in run.plan.shards:
        for chunk in read_shard(shard, read_config(run, 1, last_pass=False)):
            decoded = Chunk.from_table(decode_chunk(chunk, SizePolicy()).to_table())
            answers = step.pack(step.submit(step.unpack(decoded))())
            rows |= _by_id(answers.rows.select(["image_id", "status", "label"]).to_pydict())
    return rows


def rows_of(output: Path) -> Rows | None:
    """Those that a run has published; None if one is there twice."""
    columns = pq.read_table(output / "data", columns=["image_id", "status", "label"]).to_pydict()
    rows = _by_id(columns)
    return rows if len(rows) == len(columns["image_id"]) else None


def _by_id(columns: Mapping[str, list[Any]]) -> Rows:
    return {name: (status, label) for name, status, label in zip(*columns.values(), strict=True)}
