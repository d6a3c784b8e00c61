"""Processes that die in the middle of a task change nothing in the output."""

import os
import time
from pathlib import Path

import duckdb
import pytest

from pipeline.chunks.sample import rank
from pipeline.chunks.task import Classify
from pipeline.cluster.config import ComputeConfig
from pipeline.config.job_config import JobConfig
from pipeline.flow import run_pass as flow
from pipeline.inputs.config import InputConfig
from pipeline.lease.lease import Lease
from pipeline.output.config import OutputConfig
from pipeline.run.execute import execute
from pipeline.run.prepare import prepare

# Ray warns of its own settings and leaves files and sockets to its own end; the jobs' own warnings stay errors.
pytestmark = [
    pytest.mark.drill,
    pytest.mark.filterwarnings("ignore:::ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SELECT = """
    SELECT image_id, row, status, error_code, width, height, label_id, round(score, 4) AS score
    FROM read_parquet('{}/data/*.parquet') ORDER BY image_id, row
"""


@pytest.fixture
def photos(tmp_path, draw):
    """Enough pixels for several blocks, so that a task is in the middle of its work when it dies."""
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(160):
        (folder / f"{index:03d}.png").write_bytes(draw(index, 300, 250))
    (folder / "080.png").write_bytes(b"\x89PNG broken")
    return folder


@pytest.fixture
def run(photos, tiny_weights, tmp_path, on_warm_ray):
    def run(name, **changes):
        output = tmp_path / name
        config = JobConfig(
            task=Classify(),
            input=InputConfig(uris=(str(photos),)),
            output=OutputConfig(uri=str(output), rows_per_file=16),
            weights=str(tiny_weights),
            compute=ComputeConfig(device="cpu", **changes),
            precision="fp32",
            thumbnails=24,
        )
        with Lease(config.output.folder, name) as lease:
            report = execute(*prepare(config, time.time(), lease), lambda progress: None)
        return report, duckdb.sql(SELECT.format(output)).fetchall() if list(output.glob("data/*")) else []

    return run


def die_once(flag: Path, after: int):
    """A function that ends its process the first time that any process has called it so often."""

    def count(calls: list) -> None:
        calls.append(None)
        if len(calls) == after and not flag.exists():
            flag.touch()
            os._exit(1)

    return count


def test_a_task_that_dies_after_some_of_its_chunks_is_retried_to_the_same_output(run, monkeypatch, tmp_path):
    undisturbed, expected = run("undisturbed")
    assert undisturbed.problems == ()
    assert len(expected) == 160

    real_read, real_decode = flow._read, flow._decode
    read_flag, decode_flag = tmp_path / "read-died", tmp_path / "decode-died"
    read_dies, decode_dies = die_once(read_flag, after=9), die_once(decode_flag, after=1)

    # Nested, so that Ray sends them by value: its workers cannot import a test.
    def read_and_die(batch, config, notify):
        calls: list = []
        for table in real_read(batch, config, notify):
            yield table
            read_dies(calls)

    def decode_and_die(batch, step, sizes, careful, thumbnails, notify):
        decode_dies([])
        return real_decode(batch, step, sizes, careful, thumbnails, notify)

    monkeypatch.setattr(flow, "_read", read_and_die)
    monkeypatch.setattr(flow, "TARGET_BLOCK_BYTES", 2**18)
    monkeypatch.setattr(flow, "_decode", decode_and_die)
    disturbed, found = run("disturbed")
    assert read_flag.exists()
    assert decode_flag.exists()
    assert found == expected
    assert (disturbed.passes, disturbed.problems) == (1, ())
    # The account does not count the work that was done twice.
    assert disturbed.run.bytes == undisturbed.run.bytes
    assert disturbed.run.macs == undisturbed.run.macs
    assert disturbed.run.listed == 160
    ok = [image_id for image_id, _, status, *_ in expected if status == "ok"]
    for each in (undisturbed, disturbed):
        assert [sample.image_id for sample in each.breakdown.samples] == sorted(ok, key=rank)[:24]


def test_an_image_that_kills_its_decoder_every_time_costs_no_other_image_its_row(run, monkeypatch):
    undisturbed, expected = run("undisturbed")
    real_decode = flow._decode

    def decode_or_die(batch, step, sizes, careful, thumbnails, notify):
        from pipeline.chunks.chunk import Chunk

        if not careful and 42 in Chunk.from_table(batch).rows.column("row").to_pylist():
            os._exit(1)
        return real_decode(batch, step, sizes, careful, thumbnails, notify)

    monkeypatch.setattr(flow, "_decode", decode_or_die)
    report, found = run("disturbed")
    assert report.passes == 3
    assert report.problems == ()
    # Some of them were made in the careful pass.
    thumbnails = [[(each.image_id, each.jpeg) for each in made.breakdown.samples] for made in (undisturbed, report)]
    assert thumbnails[0] == thumbnails[1]
    assert len(thumbnails[0]) == 24
    assert found == expected


def test_a_worker_whose_code_is_broken_ends_the_run_with_the_reason(run, monkeypatch):
    def broken(batch, config, notify):
        raise RuntimeError("this step is broken")
        yield

    monkeypatch.setattr(flow, "_read", broken)
    report, found = run("broken")
    assert report.status == "failed"
    assert report.run.listed == 0
    assert any("this step is broken" in problem for problem in report.problems)
    assert found == []
