"""The attempts that `jobs/submit.py` follows or submits, and its ends; the cluster is a stand-in."""

import json
import os
import signal
import time
from types import SimpleNamespace

import pytest
from ray.job_submission import JobStatus

from jobs import submit as module
from jobs.cli.command import run_command
from jobs.remote.attempts import NoAnswerError
from jobs.submit import exit_code_of, last_line_of_job, submit

COMMAND = ("--", "python", "jobs/classify.py", "--input", "a b")
ENTRYPOINT = "python jobs/classify.py --input 'a b'"


def job(status, entrypoint=ENTRYPOINT, **fields):
    return SimpleNamespace(**{"message": "", "driver_exit_code": None, **fields}, status=status, entrypoint=entrypoint)


class PlayedCluster:
    """A stand-in of a cluster, with jobs by name; `ends` changes a job between two looks at it."""

    def __init__(self):
        self.jobs, self.logs, self.submitted, self.stopped = {}, {}, [], []
        self.ends = lambda name: None
        self.quicker = lambda name: None

    def find(self, name):
        if name in self.jobs:
            self.ends(name)
        return self.jobs.get(name)

    def submit(self, name, entrypoint, runtime_env):
        self.quicker(name)
        if name in self.jobs:
            return False
        self.submitted.append((name, runtime_env))
        self.jobs[name] = job(JobStatus.PENDING, entrypoint)
        return True

    def log(self, name, patience_s=None):
        return self.logs.get(name, "")

    def stop(self, name):
        self.stopped.append(name)
        self.jobs[name] = job(JobStatus.STOPPED)


@pytest.fixture
def cluster(monkeypatch):
    played = PlayedCluster()
    monkeypatch.setattr(module, "RayJobs", lambda address, patience_s: played)
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    return played


@pytest.fixture
def run(cluster, capsys):
    """Runs the command; returns its exit code and its last line."""

    def run(*flags, command=COMMAND):
        code = run_command(submit, ["--date", "2026-11-27", "--poll-s", "0.01", *flags, *command])
        run.captured = capsys.readouterr()
        return code, json.loads(run.captured.out.splitlines()[-1])

    return run


@pytest.fixture
def name(run, cluster):
    """Returns the name of the job in these tests."""
    cluster.ends = lambda name: cluster.jobs.update({name: job(JobStatus.SUCCEEDED)})
    name = run()[1]["submission_id"]
    cluster.__init__()
    return name


def test_a_job_is_named_after_its_day_and_its_command(run, cluster):
    cluster.ends = lambda name: cluster.jobs.update({name: job(JobStatus.SUCCEEDED)})
    first, again = run(), run()
    assert first[1]["submission_id"].startswith("label-2026-11-27-")
    assert again == first
    assert len(cluster.submitted) == 1
    assert run("--date", "2026-11-28")[1]["submission_id"] != first[1]["submission_id"]
    assert run(command=(*COMMAND, "--prune"))[1]["submission_id"] != first[1]["submission_id"]
    assert run("--submission-id", "mine")[1]["submission_id"] == "mine"
    assert cluster.submitted[-1] == ("mine", {"working_dir": "."})


def test_a_job_that_runs_is_followed_and_not_submitted_again(run, cluster, name):
    cluster.jobs[name] = job(JobStatus.RUNNING)
    cluster.ends = lambda name: cluster.jobs.update({name: job(JobStatus.SUCCEEDED)})
    assert run() == (
        0,
        {"status": "done", "submission_id": name, "job_status": "SUCCEEDED", "exit_code": 0, "summary": None},
    )
    assert cluster.submitted == []


@pytest.mark.parametrize("ended", [JobStatus.FAILED, JobStatus.STOPPED])
def test_a_job_that_failed_or_was_stopped_is_tried_again_as_the_next_attempt(run, cluster, name, ended):
    cluster.jobs[name] = job(ended)
    cluster.jobs[f"{name}-2"] = job(ended)
    cluster.ends = lambda at: cluster.jobs.update({at: job(JobStatus.SUCCEEDED)}) if at == f"{name}-3" else None
    code, summary = run()
    assert (code, summary["submission_id"]) == (0, f"{name}-3")
    assert [at for at, _ in cluster.submitted] == [f"{name}-3"]


def test_attempts_are_bounded_and_then_the_last_ones_end_is_told(run, cluster, name):
    cluster.jobs[name] = job(JobStatus.FAILED, driver_exit_code=3)
    cluster.jobs[f"{name}-2"] = job(JobStatus.FAILED, driver_exit_code=5)
    code, summary = run("--max-attempts", "2")
    assert (code, summary["submission_id"]) == (5, f"{name}-2")
    assert cluster.submitted == []


def test_of_two_starts_at_once_the_slower_one_follows(run, cluster, name):
    cluster.quicker = lambda at: cluster.jobs.update({at: job(JobStatus.RUNNING)})
    cluster.ends = lambda at: cluster.jobs.update({at: job(JobStatus.SUCCEEDED)})
    assert run()[0] == 0
    assert cluster.submitted == []


def test_of_two_starts_at_once_the_slower_one_takes_the_next_attempt_if_that_failed_meanwhile(run, cluster, name):
    cluster.quicker = lambda at: cluster.jobs.update({at: job(JobStatus.FAILED)}) if at == name else None
    cluster.ends = lambda at: cluster.jobs.update({at: job(JobStatus.SUCCEEDED)}) if at != name else None
    assert run()[1]["submission_id"] == f"{name}-2"


def test_a_name_that_another_command_has_is_refused(run, cluster):
    cluster.jobs["mine"] = job(JobStatus.RUNNING, "python something.py")
    code, summary = run("--submission-id", "mine")
    assert code == 2
    assert "of another command" in summary["error"]


@pytest.mark.parametrize(
    ("log", "seen", "code"),
    [
        ('12:00 INFO\n{"status": "failed", "exit_code": 8}\n12:01 WARNING late\n', 1, 8),
        ("no summary\n", 5, 5),
        ("", 137, 1),
        ("", -9, 1),
        ("", None, 1),
        ('{"exit_code": 0}\n', 139, 1),
    ],
)
def test_a_job_that_failed_ends_with_its_own_code_and_never_with_0(run, cluster, name, log, seen, code):
    cluster.logs[name] = log
    cluster.jobs[name] = job(JobStatus.FAILED, message="it failed\nat the end", driver_exit_code=seen)
    found, summary = run("--max-attempts", "1")
    assert (found, summary["status"], summary["job_status"]) == (code, "failed", "FAILED")
    assert f"error: job {name}: it failed at the end" in run.captured.err


def test_a_job_that_is_stopped_ends_with_9_and_its_summary(run, cluster, name):
    cluster.logs[name] = '{"status": "stopped", "exit_code": 9}\n'
    cluster.ends = lambda at: cluster.jobs.update({at: job(JobStatus.STOPPED)})
    code, summary = run()
    assert (code, summary["status"], summary["summary"]) == (9, "stopped", {"status": "stopped", "exit_code": 9})


def test_the_log_is_passed_on_once_as_it_grows(run, cluster, name):
    def grow(at):
        cluster.logs[at] = cluster.logs.get(at, "") + f"line {len(cluster.logs.get(at, ''))}\n"
        if len(cluster.logs[at]) > 15:
            cluster.jobs[at] = job(JobStatus.SUCCEEDED)

    cluster.ends = grow
    assert run()[0] == 0
    passed_on = [line for line in run.captured.err.splitlines() if line.startswith("line")]
    assert passed_on == cluster.logs[name].splitlines()


def test_a_log_that_cannot_be_had_costs_the_log_alone(run, cluster, name, monkeypatch):
    def lost(at, patience_s=None):
        raise NoAnswerError("no log")

    monkeypatch.setattr(cluster, "log", lost)
    looks = iter([JobStatus.RUNNING, JobStatus.FAILED])
    cluster.ends = lambda at: cluster.jobs.update({at: job(next(looks), driver_exit_code=6)})
    assert run()[0] == 6


@pytest.mark.parametrize(
    ("what", "code", "status"),
    [
        (NoAnswerError("http://head:8265: no answer"), 9, "left"),
        (None, 9, "left"),
    ],
)
def test_a_cluster_that_goes_away_or_forgets_the_job_leaves_it_to_the_next_start(run, cluster, what, code, status):
    def go_away(at):
        if isinstance(what, Exception):
            raise what
        del cluster.jobs[at]

    cluster.ends = go_away
    found, summary = run()
    assert (found, summary["status"]) == (code, status)
    assert "the same command continues" in run.captured.err


def test_a_cluster_that_never_answered_is_a_wrong_config(run, monkeypatch):
    def away(address, patience_s):
        raise NoAnswerError("http://head:8265: no answer; is its head up")

    monkeypatch.setattr(module, "RayJobs", away)
    code, summary = run()
    assert code == 2
    assert "is its head up" in summary["error"]


ELSEWHERE = "http://192.0.2.7:8265"  # kept for documentation: nobody has it
TUNNEL = "http://127.0.0.1:8265"


@pytest.mark.parametrize(
    ("address", "mode", "is_open", "flags", "expected"),
    [
        (ELSEWHERE, "disabled", None, (), "no token is shown to it"),
        (ELSEWHERE, "token", True, (), "lists its jobs without a token"),
        (ELSEWHERE, "token", False, (), None),
        (ELSEWHERE, "disabled", None, ("--allow-no-token",), None),
        # Through a tunnel the cluster looks like this machine's; who has a token to show expects to be asked for it.
        (TUNNEL, "token", True, (), "lists its jobs without a token"),
        (TUNNEL, "token", False, (), None),
        (TUNNEL, "token", None, ("--allow-no-token",), None),
        (TUNNEL, "disabled", None, (), None),
    ],
)
def test_nothing_is_submitted_to_a_cluster_elsewhere_that_is_open(
    run, cluster, monkeypatch, address, mode, is_open, flags, expected
):
    """`is_open` is None where it must not even be asked."""
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef")
    if is_open is not None:
        cluster.answers_anybody = lambda: is_open
    cluster.ends = lambda at: cluster.jobs.update({at: job(JobStatus.SUCCEEDED)})
    code, summary = run("--address", address, *flags)
    assert (code, len(cluster.submitted)) == ((0, 1) if expected is None else (2, 0))
    if expected is not None:
        assert expected in summary["error"] and "--allow-no-token" in summary["error"]
        assert "Traceback" not in run.captured.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_follower_that_is_told_to_end_leaves_the_job_to_itself(run, cluster, name, number):
    cluster.ends = lambda at: os.kill(os.getpid(), number)
    code, summary = run()
    assert (code, summary["status"], summary["job_status"]) == (9, "left", None)
    assert "stopped by a signal; the job goes on" in run.captured.err
    assert cluster.stopped == []


def test_a_follower_that_is_told_to_stop_with_its_job_does_so(run, cluster, name):
    cluster.ends = lambda at: None if cluster.stopped else os.kill(os.getpid(), signal.SIGTERM)
    code, summary = run("--stop-with-me")
    assert (code, summary["status"], summary["job_status"]) == (9, "stopped", "STOPPED")
    assert cluster.stopped == [name]


def test_a_job_that_does_not_stop_is_not_waited_for_for_ever(run, cluster, monkeypatch):
    monkeypatch.setattr(module, "_STOP_S", 0.1)
    monkeypatch.setattr(cluster, "stop", cluster.stopped.append)
    cluster.ends = lambda at: None if cluster.stopped else os.kill(os.getpid(), signal.SIGTERM)
    started = time.monotonic()
    code, summary = run("--stop-with-me")
    assert (code, summary["status"], summary["job_status"]) == (9, "left", "PENDING")
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("flags", "command", "said"),
    [
        (["--date", "27.11.2026"], COMMAND, "--date 27.11.2026"),
        (["--name", "a/b"], COMMAND, "no name for a job"),
        (["--submission-id", "x" * 101], COMMAND, "no name for a job"),
        (["--poll-s", "0"], COMMAND, "must be positive"),
        (["--max-attempts", "0"], COMMAND, "must be positive"),
        ([], (), "COMMAND"),
    ],
)
def test_a_command_line_that_cannot_work_is_a_wrong_config(run, flags, command, said):
    code, summary = run(*flags, command=command)
    assert code == 2
    assert said in summary["error"]


def test_only_an_object_with_an_exit_code_is_a_jobs_last_line():
    assert last_line_of_job('{"exit_code": 3}\n{"other": 1}\n{broken\n[1]\n{"exit_code": "x"}\n') == {"exit_code": 3}
    assert last_line_of_job("") is None
    assert exit_code_of({"exit_code": 300}, None) == 1
