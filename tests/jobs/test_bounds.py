"""Runs that are asked to do a part of the work, on a warm Ray: what they do, how they end, and how the next goes on."""

import os
import time

import duckdb
import pytest

from pipeline.chunks.task import Classify
from pipeline.cluster.config import ComputeConfig
from pipeline.config.job_config import BoundsConfig, JobConfig
from pipeline.flow.steps import NETWORK, Steps
from pipeline.inputs.config import InputConfig
from pipeline.lease.lease import Lease
from pipeline.output.config import OutputConfig
from pipeline.run.execute import execute
from pipeline.run.prepare import prepare
from tests.support.slow_steps import SlowDecoding

pytestmark = [
    pytest.mark.filterwarnings("ignore:::ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def photos(tmp_path, draw):
    """A folder of ten images, of which the first four are from 1970."""
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(10):
        (folder / f"{index}.png").write_bytes(draw(index, 40, 40))
        if index < 4:
            os.utime(folder / f"{index}.png", (86400, 86400))
    return folder


@pytest.fixture
def night(photos, tmp_path, tiny_weights, run_here):
    """Runs the job with some more flags."""
    flags = ("--input", photos, "--weights", tiny_weights, "--output", tmp_path / "out", "--num-actors", "1")
    return lambda *more: run_here(*flags, *more)


def names(output):
    query = f"SELECT parse_filename(image_id) FROM read_parquet('{output}/data/*.parquet') ORDER BY 1"
    return [name for (name,) in duckdb.sql(query).fetchall()]


@pytest.mark.drill
def test_since_a_time_only_what_is_newer_is_begun(night, tmp_path):
    newer = night("--since", "1970-01-03")
    assert (newer.code, newer.summary["older_objects"], newer.summary["removed_records"]) == (0, 4, 0)
    assert names(tmp_path / "out") == [f"{index}.png" for index in range(4, 10)]
    nothing = night("--since", "1970-01-03T00:00:00Z", "--prune")
    assert nothing.code == 0
    assert nothing.summary["message"].endswith("but for 4 objects that are older than --since")
    everything = night("--dry-run")
    assert (everything.summary["images"], everything.summary["older_objects"]) == (4, 0)


def test_a_run_whose_hours_are_over_publishes_what_is_whole(photos, tmp_path, tiny_weights, on_warm_ray):
    config = JobConfig(
        task=Classify(),
        input=InputConfig(uris=(str(photos),)),
        output=OutputConfig(uri=str(tmp_path / "out"), rows_per_file=1),
        weights=str(tiny_weights),
        compute=ComputeConfig(num_actors=(1, 1), device="cpu"),
        bounds=BoundsConfig(max_hours=1e-6),
    )
    with Lease(config.output.folder, "bounded") as lease:
        run, ledger = prepare(config, time.time(), lease)
        report = execute(run, ledger, lambda _: None, Steps(decode=SlowDecoding(30.0), infer=NETWORK.infer))
    assert (report.status, ledger.bound, report.reason) == ("stopped", ledger.bound, ledger.bound)
    assert ledger.bound == f"bounded by --max-hours 1e-06: {10 - report.run.listed} images are left"
