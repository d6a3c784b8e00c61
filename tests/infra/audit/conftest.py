"""One output of the real job, over inputs of every kind, some of them broken."""

import gzip
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from model.checkpoints.load import save_checkpoint
from model.checkpoints.random_weights import random_weights
from model.network.config import PVTv2Config
from tests.support.ray_settings import RAY_SETTINGS

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT_S = 240


@dataclass(frozen=True)
class Made:
    """A folder with inputs, and the output over these inputs."""

    inputs: Path
    output: Path


def drawn(seed: int) -> bytes:
    """Returns a PNG of a random size."""
    rng = np.random.default_rng(seed)
    body = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (*rng.integers(33, 90, 2), 3), np.uint8)).save(body, "PNG")
    return body.getvalue()


def tar_of(members: Iterable[tuple[str, bytes]]) -> bytes:
    """Returns a tar of (name, content) pairs; a name may come twice."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as tar:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return body.getvalue()


def write_inputs(folder: Path) -> None:
    """Writes loose files, tars and Parquet: 41 records, and three shards that break off."""
    loose, tars, parquet = folder / "loose", folder / "tars", folder / "parquet"
    for path in (loose / "cat", loose / ".git", tars, parquet):
        path.mkdir(parents=True)
    for seed in range(12):
        (loose / "cat" / f"{seed:02d}.png").write_bytes(drawn(seed))
    for name, content in {
        "_DSC1.png": drawn(1),
        "bad.jpg": b"no image",
        "empty.jpg": b"",
        "cut.png": drawn(3)[:-40],
    }.items():
        (loose / name).write_bytes(content)
    for name in (".hidden.png", ".git/x.png", "_SUCCESS", "notes.txt"):
        (loose / name).write_bytes(drawn(2))
    members = [(f"{seed}.png", drawn(seed)) for seed in range(8)]
    first = tar_of([*members, ("0.cls", b"5"), ("0.png", drawn(9)), ("._1.png", b"mac")])
    (tars / "a.tar").write_bytes(first + tar_of([("more.png", drawn(10))]))
    (tars / "a.parquet").write_bytes(b"stands beside a tar, and is passed over")
    (tars / "b.tgz").write_bytes(gzip.compress(tar_of([(f"{seed}.png", drawn(seed)) for seed in range(5)])))
    whole = tar_of([(f"{seed}.png", drawn(seed)) for seed in range(5)])
    (tars / "cut.tar").write_bytes(whole[: whole.index(b"3.png") + 700])
    (tars / "none.tar").write_bytes(b"no tar at all" * 100)
    images = [{"bytes": drawn(seed), "path": None} for seed in range(6)]
    pq.write_table(pa.table({"image": [*images, {"bytes": None, "path": "gone.png"}]}), parquet / "p.parquet")
    (parquet / "z.parquet").write_bytes(b"no Parquet at all")


def write_weights(folder: Path) -> None:
    """Writes a checkpoint of a real, very small PVTv2."""
    config = PVTv2Config(
        embed_dims=(8, 16, 40, 64), depths=(1, 1, 1, 1), num_heads=(1, 2, 5, 8), mlp_ratios=(2, 2, 2, 2),
        sr_ratios=(8, 4, 2, 1), num_classes=10,
    )  # fmt: skip
    save_checkpoint(random_weights(config, 0), config, tuple(f"class {number}" for number in range(10)), folder)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Returns the inputs and the output of one run. A test that changes the inputs must restore them."""
    folder = tmp_path_factory.mktemp("audited").resolve()
    write_inputs(folder / "in")
    (folder / "weights").mkdir()
    write_weights(folder / "weights")
    (folder / "home").mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
    command = [
        *(sys.executable, "jobs/classify.py", "--input", folder / "in", "--weights", folder / "weights"),
        *("--output", folder / "out", "--rows-per-file", 4, "--max-failed-fraction", 1, "--num-actors", 1),
    ]
    done = subprocess.run(
        list(map(str, command)), cwd=ROOT, env={**kept, **RAY_SETTINGS, "HOME": str(folder / "home")},
        capture_output=True, text=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Made(folder / "in", folder / "out")
