"""Whether the process that holds a lease is surely dead: never a guess."""

import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from pipeline.lease import holder
from pipeline.lease.holder import Holder, current_process
from tests.support.waiting import eventually


@pytest.fixture
def sleeper():
    """A process of ours that does nothing, and what it would write into a lease."""
    code = (
        "import dataclasses, json, sys, pipeline.lease.holder as h; "
        "print(json.dumps(dataclasses.asdict(h.current_process())), flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    yield process, Holder.from_dict(json.loads(process.stdout.readline()))
    process.communicate()


def test_a_process_is_alive_until_it_is_gone(sleeper):
    process, theirs = sleeper
    assert theirs.pid == process.pid
    assert not theirs.is_surely_dead()
    process.kill()
    process.wait()
    assert theirs.is_surely_dead()


def test_a_killed_process_that_nobody_waited_for_is_dead(sleeper):
    process, theirs = sleeper
    process.kill()
    # It stays in the process table until `wait`.
    eventually(theirs.is_surely_dead)
    assert process.returncode is None


def test_another_process_under_the_same_number_is_not_the_holder():
    mine = current_process()
    assert not mine.is_surely_dead()
    assert replace(mine, started_ticks=mine.started_ticks - 1).is_surely_dead()


@pytest.mark.parametrize(
    "changes",
    [
        {"boot_id": "another boot"},
        {"pid_namespace": "pid:[1]"},
        {"boot_id": None},
        {"pid_namespace": None},
        {"started_ticks": None},
        {"pid": 0},
        {"pid": -1},
    ],
)
def test_what_cannot_be_seen_from_here_is_not_dead(changes, sleeper):
    process, theirs = sleeper
    process.kill()
    process.wait()
    assert theirs.is_surely_dead()
    assert not replace(theirs, **changes).is_surely_dead()


def test_where_other_users_processes_are_hidden_they_are_not_dead(monkeypatch):
    """They answer to a signal, and have no entry that we may see."""
    monkeypatch.setattr(holder, "_state_and_start", lambda pid: None)
    assert not replace(current_process(), started_ticks=1).is_surely_dead()


def test_a_submitted_job_is_named(monkeypatch):
    config = {"runtime_env": {}, "metadata": {"job_submission_id": "raysubmit_abc", "job_name": "x"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(config))
    mine = current_process()
    assert mine.submission_id == "raysubmit_abc"
    assert str(mine) == f"host {mine.host}, pid {mine.pid}, Ray job raysubmit_abc"
    assert Holder.from_dict(asdict(mine) | {"later": "field"}) == mine


@pytest.mark.parametrize("text", [None, "", "{}", '{"metadata": null}', "[]"])
def test_without_a_submitted_job_there_is_none(monkeypatch, text):
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    if text is not None:
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", text)
    assert current_process().submission_id is None
    assert "Ray job" not in str(current_process())
