"""The job on an output that another run holds, or takes over. No Ray is started."""

import json
import signal
import time
from functools import partial

import pytest

from jobs.classify import classify
from jobs.cli import run_job
from jobs.cli.command import run_command
from pipeline.errors import PipelineError
from pipeline.lease.record import find_lease
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri
from tests.support.leases import CONFIG, LIVE, foreign, record, write


@pytest.fixture(autouse=True)
def signals():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def output(tmp_path):
    return canonical_uri(str(tmp_path / "out"))


@pytest.fixture
def run(capsys, tmp_path, draw, tiny_weights):
    """Runs the command over some photos; returns its exit code and its summary."""
    (tmp_path / "in").mkdir()
    for index in range(3):
        (tmp_path / "in" / f"{index}.png").write_bytes(draw(index))

    def run(*flags):
        arguments = ["--input", tmp_path / "in", "--weights", tiny_weights, "--output", tmp_path / "out", *flags]
        code = run_command(classify, [str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err, captured.err
        return code, json.loads(captured.out.splitlines()[-1])

    return run


def test_a_second_run_exits_10_and_names_the_first(run, output, tmp_path):
    write(output, foreign())
    started = time.monotonic()
    code, summary = run()
    assert code == summary["exit_code"] == 10
    assert f"{tmp_path / 'out'} is being written by run their-run (host far-away, pid 77" in summary["error"]
    assert "--wait-for-lease-s" in summary["error"]
    assert time.monotonic() - started < 20
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["_lease.json"]
    assert record(output).run_id == "their-run"


def test_a_run_that_waits_in_vain_exits_10(run, output):
    write(output, foreign())
    started = time.monotonic()
    assert run("--wait-for-lease-s", "0.5")[0] == 10
    assert time.monotonic() - started >= 0.5


def test_a_dry_run_needs_no_lease_and_leaves_none(run, output, tmp_path):
    assert run("--dry-run")[0] == 0
    assert not (tmp_path / "out").exists()
    write(output, foreign())
    before = record(output)
    assert run("--dry-run")[0] == 0
    assert record(output) == before


def test_another_jobs_output_is_refused_before_its_lease_is_taken(run, output, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "_job.json").write_text("{}")
    assert run()[0] == 5
    assert find_lease(StorePath(output, CONFIG)) is None


def test_the_lease_is_held_while_the_run_works_and_given_back_after_it(run, output, monkeypatch):
    seen = []

    def work(prepared, ledger, on_progress, stopper, fill):
        prepared.lease.fence.check()
        seen.append(record(output))
        raise PipelineError("enough")

    monkeypatch.setattr("jobs.cli.run_job.execute", work)
    assert run("--run-id", "mine")[0] == 1
    assert [(lease.state, lease.run_id) for lease in seen] == [("held", "mine")]
    assert (record(output).state, record(output).run_id) == ("released", "mine")


def test_a_run_whose_lease_is_taken_ends_with_exit_9_and_says_who_has_it(run, output, monkeypatch, caplog):
    def work(prepared, ledger, on_progress, stopper, fill):
        write(output, foreign())
        time.sleep(30)

    monkeypatch.setattr("jobs.cli.run_job.output_lease", partial(run_job.output_lease, timing=LIVE))
    monkeypatch.setattr("jobs.cli.run_job.execute", work)
    started = time.monotonic()
    code, summary = run()
    assert code == 9
    assert "went to run their-run (host far-away" in summary["error"]
    assert time.monotonic() - started < 25, "the run was not interrupted"
    assert "run.interrupted reason=the lease on the output was lost" in caplog.text
    assert record(output).run_id == "their-run"


def test_a_run_that_lost_its_lease_writes_neither_index_nor_report(run, output, monkeypatch, tmp_path):
    def interrupted(prepared, until_closed):
        write(output, foreign())
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.run.execute._join", interrupted)
    code, summary = run()
    assert code == 9
    assert "went to run their-run" in summary["error"]
    assert not list(tmp_path.glob("out/runs/*/report.json"))
    assert not (tmp_path / "out" / "_index.parquet").exists()
