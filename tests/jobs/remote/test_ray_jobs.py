"""The jobs of a cluster whose dashboard is gone, slow or wrong; a client that a test makes stands for the dashboard."""

import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from jobs.remote import attempts, ray_jobs
from jobs.remote.attempts import NoAnswerError
from jobs.remote.ray_jobs import RayJobs
from pipeline.errors import ConfigError

ADDRESS = "http://head:8265"
GONE = ConnectionError("Connection refused")
UNKNOWN = RuntimeError("Request failed with status code 404: Job a does not exist.")
TAKEN = RuntimeError(
    'Request failed with status code 500: Traceback (most recent call last):\n  File "x.py"\n'
    "ValueError: Job with submission_id a already exists. Please use a different submission_id.\n."
)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(attempts, "_RETRY_S", 0.01)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")


@pytest.fixture
def cluster(monkeypatch):
    """Makes a cluster from the answers of its client's methods, in turn; an answer that is an error is raised."""

    def make(patience_s=5.0, **answers):
        def method(name):
            turns = iter(answers[name])

            def ask(*arguments, **named):
                answer = next(turns)
                if isinstance(answer, Exception):
                    raise answer
                return answer() if callable(answer) else answer

            return ask

        client = SimpleNamespace(**{name: method(name) for name in answers if name != "connect"})
        connect = method("connect") if "connect" in answers else lambda address: client
        monkeypatch.setattr(ray_jobs, "JobSubmissionClient", lambda address: connect(address) or client)
        return RayJobs(ADDRESS, patience_s)

    return make


def test_a_dashboard_that_comes_back_is_asked_again_and_that_is_logged(cluster, caplog):
    found = cluster(connect=[GONE, None], get_job_info=[GONE, GONE, "job"]).find("a")
    assert found == "job"
    assert [record.msg.split()[0] for record in caplog.records] == ["cluster.no_answer"] * 3


def test_one_that_stays_away_is_given_up_with_what_to_look_at(cluster):
    with pytest.raises(NoAnswerError, match=r"http://head:8265: Connection refused; is its head up, .*8265"):
        cluster(connect=[GONE] * 9, patience_s=0.02)


def test_one_that_takes_a_question_and_never_answers_is_given_up_too(cluster, monkeypatch):
    monkeypatch.setattr(ray_jobs, "_ANSWER_S", 0.05)
    never = threading.Event()
    try:
        jobs = cluster(get_job_logs=[never.wait] * 9, patience_s=0)
        with pytest.raises(NoAnswerError, match=r"no answer in 0\.05 s"):
            jobs.log("a")
    finally:
        never.set()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("Request failed with status code 401: no token"), "no token"),
        (ValueError("directory /gone must be an existing directory"), "existing directory"),
        (RuntimeError("Ray version 1.2 is running on the cluster."), "Ray version 1.2"),
    ],
)
def test_what_will_not_pass_is_not_tried_again(cluster, error, said):
    with pytest.raises(ConfigError, match=said):
        cluster(connect=[error])


def test_a_job_that_is_not_there_is_none(cluster):
    assert cluster(get_job_info=[UNKNOWN]).find("a") is None


def test_a_submission_that_another_start_was_quicker_with_is_no_error(cluster):
    assert cluster(submit_job=["a"]).submit("a", "true", {}) is True
    assert cluster(submit_job=[TAKEN], get_job_info=["job"]).submit("a", "true", {}) is False


def test_a_submission_whose_answer_was_lost_is_found_and_not_repeated(cluster):
    assert cluster(submit_job=[GONE], get_job_info=["job"]).submit("a", "true", {}) is False


def test_a_submission_that_did_not_arrive_is_repeated(cluster):
    unready = RuntimeError("Request failed with status code 500: No available agent to submit job.")
    jobs = cluster(submit_job=[unready, GONE, "a"], get_job_info=[UNKNOWN, GONE, UNKNOWN])
    assert jobs.submit("a", "true", {}) is True


def test_a_submission_that_is_refused_says_the_end_of_the_servers_traceback(cluster):
    refused = RuntimeError("Request failed with status code 400: Traceback:\n  File\nTypeError: bad env\n.")
    with pytest.raises(ConfigError, match=r"http://head:8265: TypeError: bad env$"):
        cluster(submit_job=[refused], get_job_info=[UNKNOWN]).submit("a", "true", {})


@pytest.mark.parametrize("address", ["", "auto", "head:6379", "ray://head:10001"])
def test_only_a_dashboards_address_will_do(address):
    with pytest.raises(ConfigError, match="give the address of the dashboard"):
        RayJobs(address, 1)


def test_the_address_that_is_given_is_asked_whatever_the_environment_says(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://another:1")
    with pytest.raises(NoAnswerError, match=r"at address: http://127\.0\.0\.1:9"):
        RayJobs("http://127.0.0.1:9/", 0)
    assert os.environ["RAY_API_SERVER_ADDRESS"] == "http://127.0.0.1:9"


class Dashboard(BaseHTTPRequestHandler):
    """A dashboard that answers with one status, and keeps the headers of the request."""

    status, seen = 200, None

    def do_GET(self):
        type(self).seen = dict(self.headers)
        self.send_response(self.status)
        self.send_header("Location", "/login")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.mark.parametrize(("status", "expected"), [(200, True), (401, False), (403, False), (302, False)])
def test_a_dashboard_is_open_if_it_tells_its_jobs_to_who_shows_nothing(cluster, monkeypatch, status, expected):
    monkeypatch.setattr(Dashboard, "status", status)
    with HTTPServer(("127.0.0.1", 0), Dashboard) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setattr(sys.modules[__name__], "ADDRESS", f"http://127.0.0.1:{server.server_port}")
        try:
            assert cluster().answers_anybody() is expected
        finally:
            server.shutdown()
            thread.join()
    assert "Authorization" not in Dashboard.seen


def test_a_dashboard_that_does_not_say_is_asked_again(cluster, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ADDRESS", "http://127.0.0.1:1")
    with pytest.raises(NoAnswerError, match="Connection refused"):
        cluster(patience_s=0.02).answers_anybody()
