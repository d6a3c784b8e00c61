"""Runs whose blocks find no room in Ray's object store: one of 80 MiB, other objects that fill it, real spilling."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import ray

from model.checkpoints.load import save_checkpoint
from model.checkpoints.random_weights import random_weights
from model.network.config import PVTv2Config
from pipeline.cluster.cluster import Cluster
from pipeline.cluster.config import ComputeConfig
from tests.chaos.ray_cluster import running_cluster
from tests.jobs.conftest import LABELS, Result, joined_ray
from tests.support.ray_settings import RAY_SETTINGS

# Ray warns of its own settings and leaves files and sockets to its own end; the jobs' own warnings stay errors.
pytestmark = [
    pytest.mark.drill,
    pytest.mark.filterwarnings("ignore:::ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

# Ray takes no less than 75 MiB.
STORE_BYTES = 80 * 2**20
PIN_BYTES = 5 * 2**20
# 24 photos are 99 MiB when they are decoded; the huge one alone has no room in an empty store.
PHOTOS, SIDE = [f"{index:02d}.jpg" for index in range(24)], 1200
HUGE, HUGE_SIDE = "huge.jpg", 5400
# What counts as a full disk where a share of it is in use, whichever that is.
DISK_IS_FULL = {"RAY_local_fs_capacity_threshold": "0.0001"}


@dataclass(frozen=True)
class SmallRay:
    """A Ray with a small object store, which this process has joined.

    Attributes:
        spill: the folder that it spills to.
    """

    joined: Cluster
    spill: Path

    def lose_disk(self) -> None:
        """From now on nothing can be spilled."""
        self.spill.rename(self.spill.with_name("lost"))
        self.spill.touch()


@pytest.fixture
def small_ray(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallRay]:
    spill = tmp_path / "spill"
    spill.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
    env = {**kept, **RAY_SETTINGS, "HOME": str(tmp_path), **getattr(request, "param", {})}
    flags = [f"--object-store-memory={STORE_BYTES}", f"--object-spilling-directory={spill}"]
    with (
        running_cluster(env, tmp_path, flags) as nodes,
        joined_ray(ComputeConfig(ray_address=nodes.address, allow_no_token=True), tmp_path) as joined,
    ):
        yield SmallRay(joined, spill)


@pytest.fixture
def warm_ray(small_ray: SmallRay) -> Cluster:
    """For `run_here`."""
    return small_ray.joined


def fill_store(in_use: bool = False) -> list[Any]:
    """Objects that leave a few MiB in the store, as long as somebody has the list.

    Args:
        in_use: they cannot be spilled, either.
    """
    references = [ray.put(np.zeros(PIN_BYTES, np.uint8)) for _ in range(STORE_BYTES // PIN_BYTES - 1)]
    return ray.get(references) if in_use else references


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that reduces keys so far that even a huge image takes it a second."""
    config = PVTv2Config(
        embed_dims=(8, 16, 40, 64), depths=(1, 1, 1, 1), num_heads=(1, 2, 5, 8), mlp_ratios=(2, 2, 2, 2),
        sr_ratios=(64, 32, 16, 8), num_classes=10,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("weights")
    save_checkpoint(random_weights(config, 0), config, LABELS, folder)
    return folder


@pytest.fixture
def classify(run_here, weights, draw, tmp_path) -> Callable[..., Result]:
    """Classifies the photos, and others beside them."""
    folder = tmp_path / "in"
    folder.mkdir()
    for index, name in enumerate(PHOTOS):
        (folder / name).write_bytes(draw(index, SIDE, SIDE, "JPEG"))

    def run(*flags: object) -> Result:
        given = ("--input", folder, "--output", tmp_path / "out", "--weights", weights, "--rows-per-file", 4)
        return run_here(*given, *flags)

    return run


def keys(tmp_path: Path, status: str = "ok") -> list[str]:
    query = f"SELECT key FROM read_parquet('{tmp_path}/out/data/*.parquet') WHERE status = '{status}' ORDER BY key"
    return [key for (key,) in duckdb.sql(query).fetchall()] if list(tmp_path.glob("out/data/*")) else []


def test_a_full_store_is_spilled_and_even_what_has_no_room_in_an_empty_one_gets_its_row(
    classify, small_ray, draw, tmp_path
):
    (tmp_path / "in" / HUGE).write_bytes(draw(99, HUGE_SIDE, HUGE_SIDE, "JPEG"))
    pins = fill_store()
    result = classify("--max-image-pixels", HUGE_SIDE**2)
    assert (result.code, result.summary["files"]) == (0, 7), result.stderr
    assert keys(tmp_path) == [*PHOTOS, HUGE]
    # The pins, since nothing else may be spilled so early; else the store was never full.
    assert sum(path.stat().st_size for path in small_ray.spill.rglob("*") if path.is_file()) > len(pins) * PIN_BYTES / 2


def test_a_run_that_hangs_since_the_store_cannot_be_spilled_ends_and_says_so(classify, small_ray, tmp_path):
    small_ray.lose_disk()
    pins = fill_store()
    result = classify("--no-progress-timeout-s", 15)
    assert result.code == 9
    assert re.search(r"Ray's object store is \d+% full, and if it cannot be spilled", result.stderr), result.stderr
    assert (keys(tmp_path), len(pins)) == ([], 15)


@pytest.mark.parametrize("small_ray", [DISK_IS_FULL], indirect=True)
def test_a_run_that_finds_store_and_disk_full_is_incomplete_and_the_next_one_does_the_rest(classify, tmp_path):
    """It ended with 7, as if rows and records did not agree."""
    pins = fill_store(in_use=True)
    result = classify()
    assert result.code == 9
    assert "failed: Ray's object store is full on a node, and so is the disk that it spills to" in result.stderr
    assert "OutOfDiskError" in result.stderr
    assert keys(tmp_path) == []
    pins.clear()
    again = classify()
    assert again.code == 0, again.stderr
    assert keys(tmp_path) == PHOTOS
