"""The job on a cluster that was there before: submitted to it, and joined from outside."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Head:
    """A Ray head of two CPUs, started as on a real machine."""

    address: str
    dashboard: str


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def head(tmp_path_factory, job_env):
    port, dashboard_port = free_port(), free_port()
    command = [
        BIN / "ray", "start", "--head", "--block", "--num-cpus=2", f"--port={port}", "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard_port}", "--disable-usage-stats", f"--object-store-memory={512 * 2**20}",
        f"--dashboard-agent-listen-port={free_port()}",  # another Ray's agent may have the usual one
    ]  # fmt: skip
    folder = tmp_path_factory.mktemp("head")
    env = {**job_env, "PATH": f"{BIN}{os.pathsep}{job_env['PATH']}"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
    dashboard = f"http://127.0.0.1:{dashboard_port}"
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError), urllib.request.urlopen(f"{dashboard}/api/version", timeout=2):
                break
            time.sleep(0.5)
        else:
            pytest.fail((folder / "log").read_text())
        (address,) = {
            line.split("'")[1] for line in (folder / "log").read_text().splitlines() if "--address='" in line
        } or {f"127.0.0.1:{port}"}
        yield Head(address, dashboard)
    finally:
        # Blocking, it ends what it started; what is left is ended with its process group.
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def photos(tmp_path, draw):
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(24):
        (folder / f"{index:03d}.png").write_bytes(draw(index))
    return folder


def submit(head, job_env, *arguments):
    env = {**job_env, "PATH": f"{BIN}{os.pathsep}{job_env['PATH']}"}
    command = [BIN / "ray", "job", "submit", "--address", head.dashboard, "--working-dir", ROOT, "--", *arguments]
    for _ in range(5):
        done = subprocess.run(
            [str(part) for part in command], env=env, capture_output=True, text=True, timeout=240, check=False
        )
        # The head's dashboard answers some seconds before it can start anything.
        if "No available agent to submit job" not in done.stderr:
            break
    return done


def test_a_submitted_job_writes_its_rows_and_ends_with_its_summary(head, job_env, photos, tiny_weights, tmp_path):
    output = tmp_path / "out"
    job = ("python", "jobs/classify.py", "--input", photos, "--weights", tiny_weights, "--output", output)
    done = submit(head, job_env, *job)
    assert done.returncode == 0, done.stdout + done.stderr
    summaries = [line for line in done.stdout.splitlines() if line.startswith('{"status"')]
    assert json.loads(summaries[-1])["listed"] == 24
    counts = duckdb.sql(f"SELECT count(*), count(DISTINCT image_id) FROM '{output}/data/*.parquet'").fetchall()
    assert counts == [(24, 24)]


def test_a_submitted_job_that_is_refused_fails_and_says_why(head, job_env, tiny_weights, tmp_path):
    job = ("python", "jobs/classify.py", "--input", tmp_path / "gone", "--weights", tiny_weights)
    done = submit(head, job_env, *job, "--output", tmp_path / "out")
    assert done.returncode == 1
    assert "nothing is there" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_driver_joins_a_cluster_from_outside_with_its_own_code(head, photos, tiny_weights, tmp_path, run_job):
    output = tmp_path / "out"
    result = run_job(
        "--input", photos, "--weights", tiny_weights, "--output", output, "--ray-address", head.address, cwd=tmp_path
    )
    assert result.code == 0, result.stderr
    assert result.summary["rows_in_output"] == 24
    report = json.loads(Path(result.summary["report"]).read_text())
    assert report["actors"] == {"device": "cpu", "min": 2, "max": 2}


def test_more_actors_than_the_cluster_has_room_for_are_refused(head, photos, tiny_weights, tmp_path, run_job):
    arguments = ("--input", photos, "--weights", tiny_weights, "--output", tmp_path / "out", "--num-actors", "9")
    result = run_job(*arguments, "--ray-address", head.address)
    assert result.code == 2
    assert "at most 2 fit" in result.stderr


@pytest.mark.parametrize(
    ("name", "replacement", "expected"),
    [
        ("_versions", {"python": "3.8.1"}, "has python 3.11"),
        ("_versions", {"pyarrow": "1.0"}, "they must be equal"),
        ("_NEEDED_PACKAGES", ("ray", "pyarrow", "numpy", "no-such-package"), "lacks no-such-package"),
    ],
)
def test_a_node_that_does_not_fit_is_named(head, job_env, name, replacement, expected, monkeypatch):
    """In a process of its own, since only one cluster may be joined at a time."""
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from pipeline import cluster
from pipeline.config import ComputeConfig
from pipeline.errors import ConfigError
real, replacement = cluster.{name}, {replacement!r}
if isinstance(replacement, dict):
    cluster._versions = lambda: {{**real(), **replacement}}
else:
    import ray
    cluster.{name} = replacement
try:
    with cluster.joined_cluster(ComputeConfig(ray_address={head.address!r}), [Path('/')]):
        print('joined')
except ConfigError as error:
    print('refused:', error)
"""
    done = subprocess.run([sys.executable, "-c", program], env=job_env, capture_output=True, text=True, timeout=120)
    assert "refused:" in done.stdout, done.stderr
    assert expected in done.stdout


def test_a_path_that_a_node_does_not_see_is_named(head, job_env):
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from pipeline import cluster
from pipeline.config import ComputeConfig
from pipeline.errors import ConfigError
try:
    with cluster.joined_cluster(ComputeConfig(ray_address={head.address!r}), [Path('/no/such/folder')]):
        print('joined')
except ConfigError as error:
    print('refused:', error)
"""
    done = subprocess.run([sys.executable, "-c", program], env=job_env, capture_output=True, text=True, timeout=120)
    assert "does not see /no/such/folder" in done.stdout, done.stderr
