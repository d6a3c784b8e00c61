"""The job on a cluster that exists already: submitted to the cluster, and joined to it from outside.

The cluster is set up as for a network: its head is not on the loopback, and requires a token.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import duckdb
import pytest
from ray._raylet import AuthenticationTokenLoader, Config

from jobs.cli.command import run_command
from jobs.run_rayjob import end_of
from jobs.submit import submit as submit_and_follow
from tests.jobs.conftest import ONE_ACTOR
from tests.support.ray_head import BIN, running_head
from tests.support.ray_settings import RAY_SETTINGS
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
# Secrets in the environment of the user who starts jobs here, beside the cluster's token.
SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAOFTHESUBMITTER",
    "AWS_SECRET_ACCESS_KEY": "key-of-the-submitter",
    "PVTV2_NOTIFY_SECRET": "whsec-of-the-submitter",
    "HF_TOKEN": "hf_of_the_submitter",
}
WEBHOOK = "https://hooks.example.com/services/T000/of-the-submitter"


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    """Returns the settings of a user who has the cluster's token, and secrets of other kinds."""
    path = tmp_path_factory.mktemp("token") / "auth_token"
    path.write_text(secrets.token_hex(32))
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path), **SECRETS}


@pytest.fixture(scope="module")
def token_env(job_env, token):
    """Returns the environment of a user who has the token."""
    return {**job_env, **token}


@pytest.fixture(scope="module")
def head(tmp_path_factory, token_env):
    with running_head(tmp_path_factory.mktemp("head"), token_env) as head:
        assert not head.address.startswith("127.")
        yield head


@pytest.fixture
def photos(tmp_path, draw):
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(24):
        (folder / f"{index:03d}.png").write_bytes(draw(index))
    return folder


def submit(head, token_env, *arguments):
    env = {**token_env, "PATH": f"{BIN}{os.pathsep}{token_env['PATH']}"}
    command = [BIN / "ray", "job", "submit", "--address", head.dashboard, "--working-dir", ROOT, "--", *arguments]
    for _ in range(5):
        done = subprocess.run(
            [str(part) for part in command], env=env, capture_output=True, text=True, timeout=240, check=False
        )
        # The head's dashboard answers some seconds before it can start anything.
        if "No available agent to submit job" not in done.stderr:
            break
    return done


def test_a_submitted_job_writes_its_rows_and_ends_with_its_summary(head, token_env, photos, tiny_weights, tmp_path):
    output = tmp_path / "out"
    job = ("python", "jobs/classify.py", "--input", photos, "--weights", tiny_weights, "--output", output, *ONE_ACTOR)
    done = submit(head, token_env, *job)
    assert done.returncode == 0, done.stdout + done.stderr
    summaries = [line for line in done.stdout.splitlines() if line.startswith('{"status"')]
    assert json.loads(summaries[-1])["listed"] == 24
    counts = duckdb.sql(f"SELECT count(*), count(DISTINCT image_id) FROM '{output}/data/*.parquet'").fetchall()
    assert counts == [(24, 24)]


@pytest.mark.drill
def test_a_submitted_job_that_is_refused_fails_and_says_why(head, token_env, tiny_weights, tmp_path):
    job = ("python", "jobs/classify.py", "--input", tmp_path / "gone", "--weights", tiny_weights)
    done = submit(head, token_env, *job, "--output", tmp_path / "out")
    assert done.returncode == 1
    assert "nothing is there" in done.stdout
    assert "Traceback" not in done.stdout


def day_of(head, folder, program, *flags):
    """Returns the arguments of `jobs/submit.py` for running a program on the head, in a folder, on one day."""
    where = ("--address", head.dashboard, "--working-dir", str(folder), "--poll-s", "0.2", "--date", "2026-11-27")
    return [*where, *flags, "--", "python", "-c", program]


@pytest.fixture
def follow(head, token, tmp_path, monkeypatch, capfd):
    """Submits a program and follows it, in this process; returns the exit code and the last line."""
    for name, value in {**RAY_SETTINGS, **token, "RAY_API_SERVER_ADDRESS": ""}.items():
        monkeypatch.setenv(name, value)
    read_settings_again()

    def follow(program, *flags):
        code = run_command(submit_and_follow, day_of(head, tmp_path, program, *flags))
        follow.out, follow.err = capfd.readouterr()
        return code, json.loads(follow.out.splitlines()[-1])

    yield follow
    monkeypatch.undo()
    read_settings_again()


def read_settings_again():
    """Makes Ray read its variables again, which it reads once a process otherwise."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@pytest.fixture
def follower(head, token_env, tmp_path):
    """Starts a follower of a program in a process of its own."""
    started = []

    def start(program, *flags):
        command = [sys.executable, ROOT / "jobs" / "submit.py", *day_of(head, tmp_path, program, *flags)]
        process = subprocess.Popen(command, env=token_env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.drill
def test_a_job_that_failed_ends_with_its_own_code_and_the_next_start_tries_again(follow, tmp_path, caplog):
    tried = tmp_path / "tried"
    program = f"""
import json, pathlib, sys
tried = pathlib.Path({str(tried)!r})
code = 0 if tried.exists() else 6
tried.touch()
print("on its way", file=sys.stderr)
print(json.dumps({{"status": "done", "exit_code": code}}))
sys.exit(code)"""
    code, first = follow(program)
    assert (code, first["status"], first["job_status"]) == (6, "failed", "FAILED")
    assert first["summary"] == {"status": "done", "exit_code": 6}
    assert "on its way" in follow.err
    code, second = follow(program)
    assert (code, second["status"], second["job_status"]) == (0, "done", "SUCCEEDED")
    assert second["submission_id"] == f"{first['submission_id']}-2"
    assert follow(program) == (0, second)
    assert any(record.msg.startswith("job.was_done") for record in caplog.records)


def test_kubernetes_sees_that_nodes_answer_and_how_a_job_ended(head, follow, token):
    for address, path in ((head.dashboard, "gcs_healthz"), (head.agent, "local_raylet_healthz")):
        with urllib.request.urlopen(f"{address}/api/{path}", timeout=10) as answer:
            assert answer.status == 200
    _, last = follow("import sys; print('oh dear'); sys.exit(8)")
    shown = {"Authorization": f"Bearer {Path(token['RAY_AUTH_TOKEN_PATH']).read_text()}"}
    request = urllib.request.Request(f"{head.dashboard}/api/jobs/{last['submission_id']}", headers=shown)
    with urllib.request.urlopen(request, timeout=10) as answer:
        job = json.load(answer)
    # KubeRay copies the message, and knows no exit code.
    status = {
        "jobDeploymentStatus": "Failed",
        "reason": "AppFailed",
        "jobStatus": job["status"],
        "message": job["message"],
    }
    end = end_of({"status": status})
    assert end["exit_code"] == 8
    assert "oh dear" in end["error"]


@pytest.mark.drill
def test_a_doubled_start_is_one_job_and_goes_on_when_one_of_its_followers_is_killed(follower, tmp_path):
    started, released = tmp_path / "started", tmp_path / "released"
    program = f"""
import pathlib, time
with open({str(started)!r}, "a") as starts:
    starts.write("x")
while not pathlib.Path({str(released)!r}).exists():
    time.sleep(0.1)"""
    killed, other = follower(program), follower(program)
    eventually(started.exists)
    # The process follows the job by now, whichever of the two submitted it.
    assert any("job." in line for line in iter(killed.stderr.readline, ""))
    killed.send_signal(signal.SIGTERM)
    out, err = killed.communicate(timeout=60)
    assert killed.returncode == 9, err
    assert json.loads(out.splitlines()[-1])["status"] == "left"
    assert "the same command continues" in err
    released.touch()
    out, err = other.communicate(timeout=60)
    assert other.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["status"] == "done"
    assert started.read_text() == "x"


@pytest.mark.drill
def test_a_follower_that_stops_its_job_ends_with_9(follower, tmp_path):
    started = tmp_path / "started"
    program = f"import pathlib, time; pathlib.Path({str(started)!r}).touch(); time.sleep(600)"
    process = follower(program, "--stop-with-me")
    eventually(started.exists)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 9, err
    assert json.loads(out.splitlines()[-1])["job_status"] == "STOPPED"


@pytest.mark.drill
def test_a_driver_joins_a_cluster_from_outside_with_its_own_code(head, token, photos, tiny_weights, tmp_path, run_job):
    output = tmp_path / "out"
    result = run_job(
        "--input", photos, "--weights", tiny_weights, "--output", output, "--ray-address", head.address, cwd=tmp_path,
        env=token,
    )  # fmt: skip
    assert result.code == 0, result.stderr
    assert result.summary["rows_in_output"] == 24
    report = json.loads(Path(result.summary["report"]).read_text())
    assert report["actors"] == {"device": "cpu", "min": 2, "max": 2}


@pytest.mark.drill
def test_more_actors_than_the_cluster_has_room_for_are_refused(head, token, photos, tiny_weights, tmp_path, run_job):
    arguments = ("--input", photos, "--weights", tiny_weights, "--output", tmp_path / "out", "--num-actors", "9")
    result = run_job(*arguments, "--ray-address", head.address, env=token)
    assert result.code == 2
    assert "at most 2 fit" in result.stderr


@pytest.mark.drill
def test_without_a_token_nothing_is_sent_to_another_machine(head, photos, tiny_weights, tmp_path, run_job):
    arguments = ("--input", photos, "--weights", tiny_weights, "--output", tmp_path / "out")
    result = run_job(*arguments, "--ray-address", head.address)
    assert result.code == 2
    assert f"{head.address} is no loopback address, and no token is shown to it" in result.summary["error"]
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("shown", "expected"),
    [({"RAY_AUTH_MODE": "disabled"}, "no authentication token was found"), ({"RAY_AUTH_TOKEN": "another"}, "invalid")],
)
def test_a_cluster_that_asks_for_a_token_takes_no_job_from_who_has_another_or_none(
    head, follow, monkeypatch, shown, expected
):
    for name, value in shown.items():
        monkeypatch.setenv(name, value)
    read_settings_again()
    code, summary = follow("print('never')")
    assert code == 2
    assert expected in summary["error"]
    assert "Traceback" not in follow.err


@pytest.mark.drill
@pytest.mark.parametrize(
    ("name", "replacement", "expected"),
    [
        ("_versions", {"python": "3.8.1"}, "has python 3.11"),
        ("_versions", {"pyarrow": "1.0"}, "they must be equal"),
        ("_NEEDED_PACKAGES", ("ray", "pyarrow", "numpy", "no-such-package"), "lacks no-such-package"),
    ],
)
def test_a_node_that_does_not_fit_is_named(head, token_env, name, replacement, expected, monkeypatch):
    """In a process of its own, since only one cluster may be joined at a time."""
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from pipeline.cluster import cluster, nodes
from pipeline.cluster.config import ComputeConfig
from pipeline.errors import ConfigError
real, replacement = nodes.{name}, {replacement!r}
nodes.{name} = (lambda: {{**real(), **replacement}}) if isinstance(replacement, dict) else replacement
try:
    with cluster.joined_cluster(ComputeConfig(ray_address={head.address!r}), [Path('/')]):
        print('joined')
except ConfigError as error:
    print('refused:', error)
"""
    done = subprocess.run([sys.executable, "-c", program], env=token_env, capture_output=True, text=True, timeout=120)
    assert "refused:" in done.stdout, done.stderr
    assert expected in done.stdout


@pytest.mark.drill
def test_a_path_that_a_node_does_not_see_is_named(head, token_env):
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from pipeline.cluster import cluster
from pipeline.config.job_config import ComputeConfig
from pipeline.errors import ConfigError
try:
    with cluster.joined_cluster(ComputeConfig(ray_address={head.address!r}), [Path('/no/such/folder')]):
        print('joined')
except ConfigError as error:
    print('refused:', error)
"""
    done = subprocess.run([sys.executable, "-c", program], env=token_env, capture_output=True, text=True, timeout=120)
    assert "does not see /no/such/folder" in done.stdout, done.stderr


def published_by(head, token):
    """Returns all texts about jobs, actors, nodes and processes that a cluster's dashboard and metrics publish."""
    header = {"Authorization": f"Bearer {Path(token['RAY_AUTH_TOKEN_PATH']).read_text()}"}
    kinds = [f"/api/v0/{kind}?detail=1&limit=1000" for kind in ("actors", "workers", "nodes", "tasks", "runtime_envs")]
    texts = {}
    for path in ("/api/jobs/", "/api/cluster_status", "/nodes?view=summary", "/logical/actors", *kinds):
        with urllib.request.urlopen(
            urllib.request.Request(head.dashboard + path, headers=header), timeout=30
        ) as answer:
            texts[path] = answer.read().decode()
    (node,) = json.loads(texts["/nodes?view=summary"])["data"]["summary"]
    host, port = node["raylet"]["nodeManagerAddress"], node["raylet"]["metricsExportPort"]
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=30) as answer:
        texts["metrics"] = answer.read().decode()
    return texts


@pytest.mark.drill
def test_no_secret_of_the_submitter_is_told_by_the_cluster(head, token, follow, monkeypatch):
    monkeypatch.setenv("PVTV2_NOTIFY_URL", WEBHOOK)
    code, summary = follow("print('here and gone')")
    assert code == 0
    texts = published_by(head, token)
    assert summary["submission_id"] in texts["/api/jobs/"] and "ray_" in texts["metrics"]
    shown = Path(token["RAY_AUTH_TOKEN_PATH"]).read_text()
    for secret in (shown, WEBHOOK, *SECRETS.values()):
        assert [path for path, text in texts.items() if secret in text] == []
        assert secret not in follow.out + follow.err
