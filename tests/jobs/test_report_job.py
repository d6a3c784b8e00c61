"""`python jobs/report.py` over an output, on a disk and in a store."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli.command import run_command
from jobs.report import report
from pipeline.store.config import StoreConfig
from pipeline.store.store_path import StorePath
from pipeline.store.uris import join_uri
from tests.support.page_reports import full_report, minimal_report, timeline_rows

ROOT = Path(__file__).resolve().parents[2]
OLD, NEW = "20251126T172350Z-aaaa", "20261126T172350Z-ff3b"


def fill(output):
    """Two runs, of which the newer has a timeline."""
    for run_id, body in ((OLD, minimal_report(run_id=OLD)), (NEW, full_report(run_id=NEW))):
        StorePath(join_uri(output, "runs", run_id, "report.json"), StoreConfig()).put(json.dumps(body).encode())
    timeline = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(timeline_rows()), timeline)
    StorePath(join_uri(output, "runs", NEW, "timeline.parquet"), StoreConfig()).put(timeline.getvalue().to_pybytes())
    return output


@pytest.fixture
def make(capsys):
    """(arguments) -> exit code and summary of the command in this process."""

    def run(*arguments):
        code = run_command(report, [str(argument) for argument in arguments])
        return code, json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


def test_all_runs_are_compared_and_one_is_shown_with_its_timeline(tmp_path, make):
    fill(f"file://{tmp_path}")
    code, summary = make(tmp_path)
    assert (code, summary["runs"]) == (0, [OLD, NEW])
    assert summary["page"] == str(tmp_path / "runs" / "report.html")
    assert "2 runs" in (tmp_path / "runs" / "report.html").read_text()
    assert make(tmp_path, "--run-id", NEW)[0] == 0
    page = (tmp_path / "runs" / NEW / "report.html").read_text()
    assert "Over time" in page and f"Run {NEW}" in page
    code, summary = make(tmp_path, "--run-id", OLD, "--html", tmp_path / "here.html")
    assert (code, summary["page"]) == (0, str(tmp_path / "here.html"))
    assert "Over time" not in (tmp_path / "here.html").read_text()


def test_pages_of_runs_in_a_store_are_written_there(s3_root, make):
    fill(s3_root)
    code, summary = make(s3_root, "--run-id", OLD, "--run-id", NEW)
    assert (code, summary["page"]) == (0, f"{s3_root}/runs/report.html")
    assert b"2 runs" in StorePath(summary["page"], StoreConfig()).read()


def test_a_timeline_that_is_none_leaves_its_section_out(tmp_path, make):
    fill(f"file://{tmp_path}")
    (tmp_path / "runs" / NEW / "timeline.parquet").write_bytes(b"no parquet")
    assert make(tmp_path, "--run-id", NEW)[0] == 0
    assert "Over time" not in (tmp_path / "runs" / NEW / "report.html").read_text()


def test_what_is_missing_is_said(tmp_path, make):
    code, summary = make(tmp_path)
    assert (code, "no report of a run" in summary["error"]) == (3, True)
    fill(f"file://{tmp_path}")
    code, summary = make(tmp_path, "--run-id", "other")
    assert (code, "there is no such report" in summary["error"]) == (3, True)
    (tmp_path / "runs" / OLD / "report.json").write_text("[]")
    code, summary = make(tmp_path)
    assert (code, "is no report of a run" in summary["error"]) == (3, True)
    assert make(tmp_path, "--colour")[0] == 2
    (tmp_path / "file").write_text("")
    assert make(tmp_path, "--run-id", NEW, "--html", tmp_path / "file" / "page.html")[0] == 5


def test_the_command_runs_from_anywhere(tmp_path):
    fill(f"file://{tmp_path}")
    command = [sys.executable, str(ROOT / "jobs" / "report.py"), str(tmp_path), "--html", "page.html"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page.html").stat().st_size > 10_000
