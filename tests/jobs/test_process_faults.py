"""Processes of each step that die every time, die once, or never end: real runs on a warm Ray, with a tiny model."""

import os
import re
import tarfile
import time

import duckdb
import pytest

from pipeline.chunks.task import Classify
from pipeline.cluster.config import ComputeConfig
from pipeline.config.job_config import JobConfig
from pipeline.errors import CollectorsGoneError
from pipeline.flow import collectors as sink
from pipeline.flow import run_pass as flow
from pipeline.inputs.config import InputConfig
from pipeline.lease.lease import Lease
from pipeline.output.config import OutputConfig
from pipeline.run import watch
from pipeline.run.execute import execute
from pipeline.run.prepare import prepare

# Ray warns of its own settings and leaves files and sockets to its own end; the jobs' own warnings stay errors.
pytestmark = [
    pytest.mark.drill,
    pytest.mark.filterwarnings("ignore:::ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

KILLER_SIDE = 47
# In the child process that hosts the network: an image that is 47 pixels high ends it.
MISBEHAVIOUR = f"""
import os, signal, sys

if any("pipeline.infer.isolated" in argument for argument in sys.orig_argv):
    import model.packed

    real = model.packed.PackedPVTv2.submit

    def submit(network, images, outputs):
        if any(image.shape[0] == {KILLER_SIDE} for image in images):
            os.kill(os.getpid(), signal.SIGSEGV)
        return real(network, images, outputs)

    model.packed.PackedPVTv2.submit = submit
"""


@pytest.fixture
def photos(tmp_path, draw):
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(40):
        (folder / f"{index:03d}.png").write_bytes(draw(index, 40, KILLER_SIDE if index == 21 else 40))
    return folder


@pytest.fixture
def run(photos, tiny_weights, tmp_path, on_warm_ray):
    """Runs the job in this process; returns its report and its rows."""

    def run(rows_per_file, **compute):
        output = tmp_path / "out"
        config = JobConfig(
            task=Classify(),
            input=InputConfig(uris=(str(photos),)),
            output=OutputConfig(uri=str(output), rows_per_file=rows_per_file),
            weights=str(tiny_weights),
            compute=ComputeConfig(device="cpu", **compute),
            precision="fp32",
        )
        with Lease(config.output.folder, "faults") as lease:
            report = execute(*prepare(config, time.time(), lease), lambda progress: None)
        query = f"SELECT key, status, error_code, label_id FROM read_parquet('{output}/data/*.parquet') ORDER BY key"
        return report, duckdb.sql(query).fetchall() if list(output.glob("data/*")) else []

    return run


def test_an_image_that_crashes_the_network_is_one_failed_row_whoever_else_dies(run, monkeypatch, tmp_path):
    """It kills its actor in every attempt; another actor and the collector are killed once each."""
    actor_died, collector_died = tmp_path / "actor-died", tmp_path / "collector-died"
    child_path = tmp_path / "child"
    child_path.mkdir()
    (child_path / "sitecustomize.py").write_text(MISBEHAVIOUR)

    # Nested, so that Ray sends them by value: its workers cannot import a test.
    class Dying(flow.InferActor):
        def _answer(self, chunk):
            if any(height == KILLER_SIDE for height, _ in chunk.net_sizes()):
                os._exit(1)
            if chunk.header.slice == 4 and not actor_died.exists():
                actor_died.touch()
                os._exit(1)
            return super()._answer(chunk)

    class Careful(flow.CarefulInferActor):
        def __init__(self, *arguments):
            os.environ["PYTHONPATH"] = str(child_path)
            super().__init__(*arguments)

    class DyingCollector(sink.CollectorActor):
        def take(self, table, pass_number, holding):
            super().take(table, pass_number, holding)
            if not collector_died.exists():
                collector_died.touch()
                os._exit(1)

    monkeypatch.setattr(flow, "InferActor", Dying)
    monkeypatch.setattr(flow, "CarefulInferActor", Careful)
    monkeypatch.setattr(sink, "CollectorActor", DyingCollector)
    # A chunk a block, and more blocks than an actor has in its queue: were it not restarted, nobody would do the rest.
    monkeypatch.setattr(flow, "TARGET_BLOCK_BYTES", 1)
    monkeypatch.setattr(flow, "_TASK_RETRIES", 1)
    report, rows = run(2, max_passes=2, num_actors=(1, 1), no_progress_timeout_s=200.0)
    assert actor_died.exists()
    assert collector_died.exists()
    assert (report.status, report.problems, report.passes) == ("done", (), 2)
    assert [row[0] for row in rows] == [f"{index:03d}.png" for index in range(40)]
    failed = [row for row in rows if row[1] != "ok"]
    assert failed == [("021.png", "failed", "infer.crashed", None)]
    assert all(label is not None for *_, code, label in rows if code is None)
    # Nobody heard of what the collector published before it died; the report has it all the same.
    assert (report.run.listed, report.run.ok) == (40, 39)
    assert sum(band.images for band in report.breakdown.bands) == sum(report.breakdown.labels.values()) == 39
    assert sum(band.macs for band in report.breakdown.bands) == report.run.macs
    files = sum(path.stat().st_size for path in (tmp_path / "out" / "data").glob("*.parquet"))
    assert report.run.counts["bytes_out"] == files


def test_a_run_for_whose_rows_nobody_is_there_ends_with_a_report(run, monkeypatch):
    def start_pass(collectors, number):
        raise CollectorsGoneError("collector 0 did not answer")

    monkeypatch.setattr(sink.Collectors, "start_pass", start_pass)
    report, rows = run(2)
    assert (report.status, report.reason, rows) == ("failed", "collector 0 did not answer", [])


def test_a_cluster_that_changes_before_anything_is_published_is_not_followed_for_ever(run, monkeypatch):
    passes = []

    def run_pass(*arguments):
        passes.append(len(passes))
        time.sleep(60)

    monkeypatch.setattr("pipeline.run.passes.run_pass", run_pass)
    monkeypatch.setattr("pipeline.run.passes.Capacity.regained", lambda capacity: "2 CPUs are there again")
    monkeypatch.setattr("pipeline.run.passes._MOST_FRUITLESS", 4)
    monkeypatch.setattr(watch, "_POLL_S", 0.1)
    # More of them than a run has passes: a pass that is given up for the cluster's sake is none of these.
    report, rows = run(2, max_passes=2)
    assert (report.status, rows, len(passes)) == ("stalled", [], 4)
    assert report.reason == "the cluster changed 4 times in a row before anything was published"


def test_a_run_in_which_every_step_hangs_ends_and_says_what_each_of_them_holds(run, photos, monkeypatch, tmp_path):
    with tarfile.open(photos / "t.tar", "w") as tar:
        for index in range(24):
            tar.add(photos / f"{index:03d}.png", f"{index:03d}.png")
    released, pids = tmp_path / "released", tmp_path / "pids"
    pids.mkdir()
    real_read, real_decode = flow._read, flow._decode

    def hang():
        (pids / str(os.getpid())).touch()
        while not released.exists():
            time.sleep(0.05)

    # Sent by value too, the steps have globals of their own there.
    def read(batch, config, notify):
        def read_shard(shard, config):
            if shard.format == "files":
                hang()
            yield from real(shard, config)

        real = real_read.__globals__["read_shard"]
        real_read.__globals__["read_shard"] = read_shard
        yield from real_read(batch, config, notify)

    def decode(batch, step, sizes, careful, thumbnails, notify):
        def hanging_step(chunk, sizes, careful):
            if chunk.header.slice == 2:
                hang()
            return step(chunk, sizes, careful=careful)

        return real_decode(batch, hanging_step, sizes, careful, thumbnails, notify)

    class HangingCollector(sink.CollectorActor):
        def __init__(self, config):
            super().__init__(config)
            self._publish, self._collector._publish = self._collector._publish, self._publish_once
            self._has_published = False

        def _publish_once(self, entry):
            if self._has_published:
                hang()
            self._publish(entry)
            self._has_published = True

    class UntilAllHang(watch.NoProgress):
        """A machine that is busy may need longer to come so far than the test wants to wait then."""

        def since(self, marker):
            quiet_s = super().since(marker)
            all_hang = len(list(pids.iterdir())) == 3
            return quiet_s if all_hang or (quiet_s or 0) > 100 else None

    monkeypatch.setattr(flow, "_read", read)
    monkeypatch.setattr(flow, "_decode", decode)
    monkeypatch.setattr(sink, "CollectorActor", HangingCollector)
    monkeypatch.setattr(watch, "NoProgress", UntilAllHang)
    monkeypatch.setattr(flow, "TARGET_BLOCK_BYTES", 1)
    try:
        report, rows = run(8, no_progress_timeout_s=3.0, num_actors=(1, 1))
    finally:
        released.touch()
    assert report.status == "stalled"
    assert "nothing arrived and no file was published for" in report.reason
    tar = f"file://{photos}/t.tar"
    for what in (
        "read holds files:",
        f"decode holds slice 2 of {tar} from row 16 ",
        f"publish holds slice [01] of {tar}",
    ):
        assert re.search(what, report.reason), report.reason
    assert all(f"pid {path.name})" in report.reason for path in pids.iterdir())
    assert len(list(pids.iterdir())) == 3
    # What was whole before is published, and nothing else.
    assert len(rows) == report.run.listed == 8
