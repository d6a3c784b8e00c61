"""Bugs planted in each step of a real run on a warm Ray: what went wrong is in the log, the report and the rows."""

import gc
import io
import logging
import os
import tarfile
import time

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli.run_job import verdicts
from pipeline.chunks.task import Classify
from pipeline.cluster.config import ComputeConfig
from pipeline.config.job_config import JobConfig
from pipeline.flow import collectors as sink
from pipeline.flow import ray_errors
from pipeline.flow import run_pass as flow
from pipeline.inputs.config import InputConfig
from pipeline.lease.lease import Lease
from pipeline.output.config import OutputConfig
from pipeline.run import finish
from pipeline.run.execute import execute
from pipeline.run.prepare import prepare
from pipeline.run.summary import summarise
from tests.support.planted_bugs import ROOT, bug_source, planted_bug

# Ray warns of its own settings and leaves files and sockets to its own end; the jobs' own warnings stay errors.
pytestmark = [
    pytest.mark.drill,
    pytest.mark.filterwarnings("ignore:::ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

INFER_SIDE, DECODE_SIDE = 47, 46
# In the child process that hosts the network: an image that is 47 pixels high, or every one, meets a bug.
CHILD = """
import sys

if any("pipeline.infer.isolated" in argument for argument in sys.orig_argv):
    import model.packed

    real, space = model.packed.PackedPVTv2.submit, dict()
    exec(compile({source!r}, {file!r}, "exec"), space)

    def submit(network, images, outputs):
        if {is_every} or any(image.shape[0] == {side} for image in images):
            space["bug"]()
        return real(network, images, outputs)

    model.packed.PackedPVTv2.submit = submit
"""


@pytest.fixture
def log(monkeypatch):
    """The log lines of dropped blocks and of the end of a run."""
    lines = io.StringIO()
    logger = logging.Logger("lines")
    logger.addHandler(logging.StreamHandler(lines))
    for module in (ray_errors, finish):
        monkeypatch.setattr(module, "logger", logger)
    return lines


@pytest.fixture
def run(tmp_path, draw, tiny_weights, on_warm_ray, log):
    """Runs the job in this process; returns its report, its summary, its rows and its log."""
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(12):
        height = {5: DECODE_SIDE, 9: INFER_SIDE}.get(index, 40)
        (folder / f"{index:03d}.png").write_bytes(draw(index, 40, height))

    def run(**compute):
        output = tmp_path / "out"
        config = JobConfig(
            task=Classify(),
            input=InputConfig(uris=(str(folder),)),
            output=OutputConfig(uri=str(output), rows_per_file=4),
            weights=str(tiny_weights),
            # Actors of an earlier test that linger would hold the processors, and the run would wait for them for ever.
            compute=ComputeConfig(device="cpu", num_actors=(1, 1), no_progress_timeout_s=120.0, **compute),
            precision="fp32",
        )
        gc.collect()
        with Lease(config.output.folder, "bugs") as lease:
            facts, ledger = prepare(config, time.time(), lease)
            report = execute(facts, ledger, lambda progress: None)
        query = f"SELECT key, error_code, error_message FROM read_parquet('{output}/data/*.parquet')"
        rows = duckdb.sql(query + " ORDER BY key, shard").fetchall() if list(output.glob("data/*")) else []
        return report, summarise(facts, None, report), rows, log.getvalue()

    return run


@pytest.fixture
def careful(tmp_path, monkeypatch):
    """The children of the infer step meet a bug: in every image, or in one of some height."""

    def plant(*, is_every):
        source, file = bug_source(), str(ROOT / "pipeline/infer/infer_step.py")
        child_path = tmp_path / "child"
        child_path.mkdir()
        text = CHILD.format(source=source, file=file, is_every=is_every, side=INFER_SIDE)
        (child_path / "sitecustomize.py").write_text(text)

        class Careful(flow.CarefulInferActor):
            def __init__(self, *arguments):
                os.environ["PYTHONPATH"] = str(child_path)
                super().__init__(*arguments)

        monkeypatch.setattr(flow, "CarefulInferActor", Careful)

    return plant


def plant_in_read(monkeypatch):
    bug, real_read = planted_bug("pipeline/read/cut.py"), flow._read

    # Nested, so that Ray sends it by value: its workers cannot import a test.
    def read(batch, config, notify):
        real_read.__globals__["read_shard"] = bug
        yield from real_read(batch, config, notify)

    monkeypatch.setattr(flow, "_read", read)


def plant_in_decode(monkeypatch):
    bug, real_decode = planted_bug("pipeline/decode/decode_chunk.py"), flow._decode

    def decode(batch, step, sizes, careful, thumbnails, notify):
        return real_decode(batch, bug, sizes, careful, thumbnails, notify)

    monkeypatch.setattr(flow, "_decode", decode)


def plant_in_sink(monkeypatch):
    bug = planted_bug("pipeline/publish/collector.py")

    class Broken(sink.CollectorActor):
        def __init__(self, config):
            super().__init__(config)
            self._collector.add = bug

    monkeypatch.setattr(sink, "CollectorActor", Broken)


@pytest.mark.parametrize(
    ("plant", "what"),
    [
        (plant_in_read, "read: bug at pipeline/read/cut.py:41"),
        (plant_in_decode, "decode: bug at pipeline/decode/decode_chunk.py:41"),
        (plant_in_sink, "sink: bug at pipeline/publish/collector.py:41"),
    ],
)
def test_a_bug_in_a_step_is_in_the_log_and_in_the_runs_reason(run, monkeypatch, plant, what):
    plant(monkeypatch)
    report, _, rows, log = run(max_passes=1)
    check_dropped(report, rows, log, f"{what}: AttributeError: planted bug 4711")


def test_a_bug_in_the_network_is_in_the_log_and_in_the_runs_reason(run, monkeypatch, careful):
    """The cause did not survive the way to the driver: "UDF failed to process a data block." was all that was left."""
    bug = planted_bug("pipeline/infer/infer_step.py")

    class Broken(flow.InferActor):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self._step.submit = bug

    monkeypatch.setattr(flow, "InferActor", Broken)
    careful(is_every=True)
    report, _, rows, log = run(max_passes=2)
    what = "bug at pipeline/infer/infer_step.py:41: AttributeError: planted bug 4711"
    assert f"block.dropped reason=infer: {what}" in log
    last = "the child process of pipeline.infer.isolated did not start: it ended its process with status 1"
    check_dropped(report, rows, log, f"infer: ChildError: {last}: {what}")


def check_dropped(report, rows, log, what):
    assert f"block.dropped reason={what}" in log
    assert (report.status, report.passes > 0, rows) == ("failed", True, [])
    assert report.reason == report.to_dict()["reason"] == f"the last pass dropped work: {what}"
    (error,) = verdicts(report, max_failed_fraction=0.1)
    assert error.exit_code == 7
    assert what in str(error)


def test_rows_that_fail_because_of_a_bug_name_it_and_are_counted(run, monkeypatch, careful, tmp_path):
    """In a tar, in Parquet, in an image's pixels and in the network: each keeps the code that it has for bad data."""
    with tarfile.open(tmp_path / "in" / "t.tar", "w") as tar:
        tar.add(tmp_path / "in" / "000.png", "000.png")
    images = [(tmp_path / "in" / "001.png").read_bytes()]
    pq.write_table(pa.table({"image": pa.array(images, pa.binary())}), tmp_path / "in" / "p.parquet")
    in_tar, in_parquet = planted_bug("pipeline/inputs/tar.py", 90), planted_bug("pipeline/inputs/parquet.py", 150)
    in_pixels, in_network = planted_bug("pipeline/decode/to_rgb.py"), planted_bug("pipeline/infer/infer_step.py")
    real_read, real_decode = flow._read, flow._decode

    def read(batch, config, notify):
        from unittest.mock import patch

        with (
            patch("pipeline.inputs.tar._check_begins_as_tar", in_tar),
            patch("pipeline.inputs.parquet.image_of", in_parquet),
        ):
            yield from real_read(batch, config, notify)

    def decode(batch, step, sizes, careful, thumbnails, notify):
        from unittest.mock import patch

        from pipeline.decode.to_rgb import to_rgb

        def to_rgb_or_bug(image):
            return in_pixels() if image.size[1] == DECODE_SIDE else to_rgb(image)

        with patch("pipeline.decode.decode_image.to_rgb", to_rgb_or_bug):
            return real_decode(batch, step, sizes, careful, thumbnails, notify)

    class Broken(flow.InferActor):
        def _answer(self, chunk):
            if any(height == INFER_SIDE for height, _ in chunk.net_sizes()):
                in_network()
            return super()._answer(chunk)

    monkeypatch.setattr(flow, "_read", read)
    monkeypatch.setattr(flow, "_decode", decode)
    monkeypatch.setattr(flow, "InferActor", Broken)
    # A chunk a block, so that a block that is dropped takes no other slice with it.
    monkeypatch.setattr(flow, "TARGET_BLOCK_BYTES", 1)
    careful(is_every=False)
    report, summary, rows, log = run(max_passes=2)
    said = "AttributeError: planted bug 4711"
    assert [row for row in rows if row[1] is not None] == [
        ("0", "source.truncated", f"bug at pipeline/inputs/parquet.py:150: {said} (row 0 cannot be read)"),
        ("005.png", "decode.corrupt", f"bug at pipeline/decode/to_rgb.py:41: {said} (PNG)"),
        ("009.png", "infer.crashed", f"bug at pipeline/infer/infer_step.py:41: {said} (inference)"),
        (None, "source.truncated", f"bug at pipeline/inputs/tar.py:90: {said} (the tar breaks off after image 0)"),
    ]
    assert len(rows) == 14
    places = ("decode/to_rgb.py:41", "infer/infer_step.py:41", "inputs/parquet.py:150", "inputs/tar.py:90")
    assert summary["failed_by_bug"] == {f"pipeline/{place}": 1 for place in places}
    assert report.to_dict()["run"]["failed_by_bug"] == summary["failed_by_bug"]
    assert (report.status, report.passes) == ("done", 2)
    for place in places:
        assert f"rows that failed because of a bug at pipeline/{place}: 1" in report.reason
        assert f"rows.failed_by_bug place=pipeline/{place} rows=1" in log
