"""The RayJobs that `jobs/run_rayjob.py` follows or creates, and its ends; Kubernetes is a stand-in."""

import json
import os
import signal
import threading
from types import SimpleNamespace

import pytest

from jobs import run_rayjob
from jobs.cli.command import run_command
from jobs.remote import attempts, kubernetes_api
from jobs.run_rayjob import PATTERN_LABEL, end_of
from tests.support.kubernetes_api import running_api
from tests.support.manifests import MANIFESTS, complaints, rendered

NAME = "pvtv2-label-29734650"
FAILED_WITH_6 = (
    "Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 chars):\n"
    '2026-11-27 job.ended\n{"status": "done", "exit_code": 6}\n'
)


@pytest.fixture
def api(tmp_path, monkeypatch):
    with running_api(tmp_path) as (api, port):
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port))
        monkeypatch.setattr(attempts, "_RETRY_S", 0.02)
        monkeypatch.setattr(kubernetes_api, "SERVICE_ACCOUNT", tmp_path)
        api.rayjobs["pvtv2-label"] = pattern()
        yield api


# An annotation that the operator reads, and one that `kubectl apply` writes.
ANNOTATIONS = {"ray.io/x": "true", "kubectl.kubernetes.io/last-applied-configuration": "{}"}


def pattern(**spec):
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {
            "name": "pvtv2-label",
            "uid": "1",
            "resourceVersion": "7",
            "labels": {"a": "b"},
            "annotations": ANNOTATIONS,
        },
        "spec": {"suspend": True, "entrypoint": "python x.py", **spec},
        "status": {"jobDeploymentStatus": "Suspended"},
    }


def status(deployment, job="", reason="", message=""):
    return {"jobDeploymentStatus": deployment, "jobStatus": job, "reason": reason, "message": message}


# Ray's whole message to KubeRay about a job that succeeded; the message about a failed job has the end of its log.
DONE = status("Complete", "SUCCEEDED", message="Job finished successfully.")


def ends(api, *statuses):
    """Makes each RayJob that is no pattern go through these statuses, one a look."""

    def look(rayjob):
        seen = rayjob.setdefault("seen", 0)
        if not rayjob["spec"]["suspend"] and seen < len(statuses):
            rayjob["status"] = statuses[seen]
            rayjob["seen"] = seen + 1

    api.looked_at = look


def run(capsys, *more):
    """Runs the command; returns its exit code and its last line."""
    words = ["--pattern", "pvtv2-label", "--name", NAME, "--poll-s", "0.01", "--patience-s", "2", *more]
    code = run_command(run_rayjob.run_rayjob, words)
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


pytestmark = pytest.mark.usefixtures("signal_handlers")


def test_the_pattern_is_copied_under_the_ticks_name_and_followed_to_its_end(api, capsys):
    ends(api, status("Initializing"), status("Running", "RUNNING"), DONE)
    code, last = run(capsys, "--owner-uid", "u-1")
    assert (code, last["status"], last["rayjob"]) == (0, "done", NAME)
    assert last["summary"] is None
    made = api.rayjobs[NAME]
    assert made["spec"] == {"suspend": False, "entrypoint": "python x.py"}
    assert made["metadata"] == {
        "name": NAME,
        "labels": {"a": "b", PATTERN_LABEL: "pvtv2-label"},
        "annotations": {"ray.io/x": "true"},
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": NAME, "uid": "u-1"}],
    }


@pytest.mark.parametrize("overlay", ["cpu-small", "spot"])
def test_what_it_creates_of_an_overlays_pattern_is_what_a_cluster_takes(api, capsys, overlay):
    things = rendered(MANIFESTS / "overlays" / overlay)
    (api.rayjobs["pvtv2-label"],) = [each for each in things if each["kind"] == "RayJob"]
    # Here and not only in the stand-in's thread: it skips the test where there are no schemas.
    assert complaints(api.rayjobs["pvtv2-label"]) == []
    api.refuses = complaints
    ends(api, DONE)
    assert run(capsys, "--owner-uid", "u-1")[0] == 0
    # The stand-in would have noticed.
    api.rayjobs["pvtv2-label"]["spec"]["ttlSecondsAfterFinishd"] = 1
    code, last = run(capsys, "--name", "another")
    assert code == 2
    assert "ttlSecondsAfterFinishd" in last["error"]


def test_a_doubled_tick_is_one_rayjob(api, capsys):
    ends(api, *[status("Running", "RUNNING")] * 8, DONE)
    codes = []
    words = ["--pattern", "pvtv2-label", "--name", NAME, "--poll-s", "0.01"]
    starts = [
        threading.Thread(target=lambda: codes.append(run_rayjob.run_rayjob(words)["exit_code"])) for _ in range(4)
    ]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    assert codes == [0, 0, 0, 0]
    assert set(api.rayjobs) == {"pvtv2-label", NAME}


def test_a_rayjob_whose_creation_went_unanswered_is_found(api, capsys):
    ends(api, DONE)
    created = run_rayjob.copy_of(pattern(), NAME, None)

    def lose(method, name):
        if method == "POST" and name not in api.rayjobs:
            api.rayjobs[name] = created
            return 503, {"message": "gateway"}
        return None

    api.instead = lose
    assert run(capsys)[0] == 0
    assert [method for method, _ in api.asked].count("POST") == 2


def test_a_later_start_follows_leaves_alone_or_tries_again(api, capsys):
    ends(api, status("Failed", "FAILED", "AppFailed", FAILED_WITH_6))
    assert run(capsys)[0] == 6
    # The next start of the same tick is the second attempt.
    code, last = run(capsys)
    assert (code, last["rayjob"]) == (6, f"{NAME}-2")
    api.rayjobs[f"{NAME}-2"]["status"] = DONE
    code, last = run(capsys)
    assert (code, last["rayjob"], last["status"]) == (0, f"{NAME}-2", "done")
    assert f"{NAME}-3" not in api.rayjobs


def test_attempts_are_bounded_and_then_the_last_ones_end_is_told(api, capsys):
    ends(api, status("Failed", "", "DeadlineExceeded"))
    for _ in range(4):
        code, last = run(capsys, "--max-attempts", "2")
        assert code == 9
    assert last["rayjob"] == f"{NAME}-2"
    assert set(api.rayjobs) == {"pvtv2-label", NAME, f"{NAME}-2"}


@pytest.mark.parametrize(
    ("found", "exit_code"),
    [
        (status("Complete", "SUCCEEDED"), 0),
        (status("Complete", "STOPPED"), 9),
        # The operator has been seen to call a job that failed complete.
        (status("Complete", "FAILED", "AppFailed", FAILED_WITH_6), 6),
        (status("Failed", "FAILED", "AppFailed", FAILED_WITH_6), 6),
        (status("Failed", "FAILED", "AppFailed", "failed with exit code 8, last logs"), 8),
        (status("Failed", "FAILED", "AppFailed", "failed with exit code -9, last logs"), 1),
        (status("Failed", "FAILED", "AppFailed", "the node died"), 1),
        (status("Failed", "FAILED", "AppFailed", 'x\n{"exit_code": 0}\n'), 1),
        (status("Failed", "", "ValidationFailed", "the name is too long"), 2),
        (status("ValidationFailed", "", "", "the name is too long"), 2),
        (status("Failed", "RUNNING", "DeadlineExceeded"), 9),
        (status("Failed", "", "PreRunningDeadlineExceeded"), 9),
        (status("Failed", "RUNNING", "JobStatusCheckTimeoutExceeded"), 9),
        (status("Failed", "", "SubmissionFailed"), 9),
    ],
)
def test_how_a_rayjob_ended_is_an_exit_code(found, exit_code):
    end = end_of({"status": found})
    assert end["exit_code"] == exit_code
    assert bool(end["error"]) == (exit_code != 0)


@pytest.mark.parametrize("deployment", ["", "Initializing", "Running", "Suspended", "Retrying", "Waiting", "Whatever"])
def test_a_rayjob_that_has_not_ended_is_followed(deployment):
    assert end_of({"status": status(deployment, "RUNNING")}) is None
    assert end_of({}) is None


@pytest.mark.parametrize(("good", "code"), [("0,10", 0), ("0", 10)])
def test_a_run_that_found_the_output_held_is_a_good_end_if_that_is_said(api, capsys, good, code):
    message = FAILED_WITH_6.replace('"exit_code": 6', '"exit_code": 10')
    ends(api, status("Failed", "FAILED", "AppFailed", message))
    found, last = run(capsys, "--good-exit-codes", good)
    assert (found, last["job_exit_code"]) == (code, 10)


def test_an_api_that_comes_back_is_asked_again_with_the_token_of_the_moment(api, capsys):
    ends(api, status("Running"), DONE)
    faults = [(500, {}), (429, {"message": "slowly"}), (503, {})]
    api.instead = lambda method, name: faults.pop() if faults else None
    (api.service_account / "token").write_text("second")
    assert run(capsys)[0] == 0


def test_an_api_that_stays_away_is_no_end_of_the_job(api, capsys):
    ends(api, status("Running"))

    api.instead = lambda method, name: (503, {"message": "etcd"}) if len(api.asked) > 4 else None
    code, last = run(capsys, "--patience-s", "0.1")
    assert (code, last["status"]) == (9, "left")
    assert NAME in api.rayjobs
    # Before there is a job, too: the next pod asks again.
    code, last = run(capsys, "--patience-s", "0.1")
    assert code == 9
    assert "etcd" in last["error"] and "the same command continues" in last["error"]


def test_a_refusal_ends_nobodys_following_if_it_passes(api, capsys):
    """A control plane that is being replaced may for a moment not know the service account."""
    ends(api, status("Running", "RUNNING"), DONE)
    faults = [(401, {"message": "Unauthorized"}), (403, {"message": "rayjobs is forbidden"})]
    api.instead = lambda method, name: faults.pop() if NAME in api.rayjobs and faults else None
    assert run(capsys)[0] == 0
    assert faults == []
    del api.rayjobs[NAME]
    ends(api, status("Running", "RUNNING"))
    api.instead = lambda method, name: (403, {"message": "rayjobs is forbidden"}) if NAME in api.rayjobs else None
    code, last = run(capsys, "--patience-s", "0.1")
    assert (code, last["status"]) == (9, "left")


def test_what_is_set_up_wrongly_is_said_at_once(api, capsys, monkeypatch):
    api.instead = lambda method, name: (403, {"message": "rayjobs is forbidden: User x cannot get"})
    code, last = run(capsys)
    assert code == 2
    assert "cannot get" in last["error"]
    api.instead = lambda method, name: None
    api.rayjobs["pvtv2-label"]["spec"]["suspend"] = False
    assert "not suspended" in run(capsys)[1]["error"]
    del api.rayjobs["pvtv2-label"]
    assert "there is no RayJob pvtv2-label" in run(capsys)[1]["error"]
    api.rayjobs[NAME] = {"metadata": {"name": NAME}, "spec": {}}
    assert "no copy" in run(capsys)[1]["error"]
    assert run(capsys, "--name", "x" * 45)[0] == 2
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    assert "no pod" in run(capsys)[1]["error"]


def test_another_authoritys_certificate_is_not_trusted(api, capsys, tmp_path, monkeypatch):
    with running_api(_folder(tmp_path / "other")) as (_, port):
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port))
        code, last = run(capsys, "--patience-s", "0")
    assert code == 9
    assert "certificate" in last["error"]
    assert "first" not in str(api.asked)


def test_told_to_end_it_leaves_the_rayjob_to_itself(api, capsys, monkeypatch):
    ends(api, *[status("Running", "RUNNING")] * 10_000)
    # In a pause, and in no request: its socket would be left to the garbage collector, which warns.
    paused = SimpleNamespace(sleep=lambda seconds: os.kill(os.getpid(), signal.SIGTERM))
    with monkeypatch.context() as patched:
        patched.setattr(run_rayjob, "time", paused)
        code, last = run(capsys)
    assert (code, last["status"]) == (9, "left")
    assert {method for method, _ in api.asked} == {"GET", "POST"}
    # The next start follows it.
    ends(api, DONE)
    api.rayjobs[NAME]["seen"] = 0
    assert run(capsys)[1]["rayjob"] == NAME


def test_a_rayjob_that_is_deleted_leaves_the_work_to_the_next_start(api, capsys):
    def look(rayjob):
        if not rayjob["spec"]["suspend"]:
            del api.rayjobs[NAME]

    api.looked_at = look
    code, last = run(capsys)
    assert code == 9
    assert "deleted" in last["error"]


def _folder(path):
    path.mkdir()
    return path
