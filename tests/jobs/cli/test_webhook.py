"""The webhook against a receiver on this machine: its requests, their repetitions, and what is never logged."""

import contextlib
import hashlib
import hmac
import json
import logging
import re
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from jobs.classify import classify
from jobs.cli.command import run_command
from jobs.cli.webhook import SECRET_VARIABLE, URL_VARIABLE, Patience, Webhook, run_ended, webhook_from
from jobs.evaluate import evaluate
from jobs.label_dataset import label_dataset
from pipeline.errors import ConfigError

SECRET = "whsec-of-the-receiver"
PATH = "/services/T000/B000/token-in-the-path"
DOCS = Path(__file__).resolve().parents[3] / "docs" / "operate" / "notifications.md"


class Receiver(ThreadingHTTPServer):
    """A receiver that gives the answers in `answers`, then 200, and keeps (path, headers, body) of each request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.received = [], []
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}{PATH}?key=also-a-secret"

    def handle_error(self, request, client_address):
        pass


class Handler(BaseHTTPRequestHandler):
    timeout = 10

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, self.headers, body))
        answer = self.server.answers.pop(0) if self.server.answers else 200
        if answer == "silent":
            self.server.released.wait(60)
        elif answer == "trickle":
            with contextlib.suppress(OSError):
                for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"." * 3000:
                    self.wfile.write(bytes([byte]))
                    if self.server.released.wait(0.02):
                        break
        elif answer == "hang up":
            self.connection.close()
        else:
            status, headers = answer if isinstance(answer, tuple) else (answer, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()


@pytest.fixture
def receiver(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()
    thread.join(10)


class Clock:
    """A clock that advances only when somebody sleeps."""

    def __init__(self):
        self.now, self.pauses = 1000.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


def webhook(receiver, clock, *, secret=SECRET, **patience):
    return Webhook(url=receiver.url, secret=secret, patience=Patience(**patience), clock=clock, sleep=clock.sleep)


def test_the_receiver_gets_the_body_as_signed_json(receiver, clock):
    before = int(time.time())
    assert webhook(receiver, clock).send({"event": "run.ended", "text": "fertig – ✓", "psi": float("nan")})
    ((path, headers, body),) = receiver.received
    assert path == f"{PATH}?key=also-a-secret"
    assert json.loads(body) == {"event": "run.ended", "text": "fertig – ✓", "psi": None}
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"] == "pvtv2-batch"
    seconds, notification_id = headers["X-Pvtv2-Timestamp"], headers["Idempotency-Key"]
    assert before <= int(seconds) <= time.time()
    signed = notification_id.encode() + b"." + seconds.encode() + b"." + body
    assert headers["X-Pvtv2-Signature"] == "sha256=" + hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()


def test_the_snippet_of_the_docs_verifies_and_refuses_what_was_touched_or_is_old(receiver, clock):
    webhook(receiver, clock).send({"event": "run.ended"})
    ((_, headers, body),) = receiver.received
    names: dict = {}
    exec(re.search(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)[1], names)
    is_genuine = names["is_genuine"]
    assert is_genuine(headers, body, SECRET)
    assert not is_genuine(headers, body + b" ", SECRET)
    assert not is_genuine(headers, body, "another secret")
    assert not is_genuine({}, body, SECRET)
    for name, value in (
        ("Idempotency-Key", "another"),
        ("X-Pvtv2-Timestamp", str(int(headers["X-Pvtv2-Timestamp"]) - 1)),
        ("X-Pvtv2-Timestamp", "no number"),
        ("X-Pvtv2-Signature", "sha256=é"),
    ):
        assert not is_genuine({**headers, name: value}, body, SECRET)
    for age_s, is_fresh in ((200, True), (3600, False)):
        then = str(int(time.time()) - age_s)
        signed = f"{headers['Idempotency-Key']}.{then}.".encode() + body
        genuine = "sha256=" + hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
        signed_then = {**headers, "X-Pvtv2-Timestamp": then, "X-Pvtv2-Signature": genuine}
        assert is_genuine(signed_then, body, SECRET) == is_fresh


def test_without_a_secret_nothing_is_signed(receiver, clock):
    assert webhook(receiver, clock, secret=None).send({})
    ((_, headers, _),) = receiver.received
    assert "X-Pvtv2-Signature" not in headers


@pytest.mark.parametrize("trouble", [503, 408, 429, 500, "hang up"])
def test_what_may_pass_is_tried_again_under_the_same_id(receiver, clock, trouble):
    receiver.answers = [trouble, trouble]
    assert webhook(receiver, clock).send({"event": "run.ended"})
    assert len(receiver.received) == 3
    assert len({headers["Idempotency-Key"] for _, headers, _ in receiver.received}) == 1
    assert len({body for _, _, body in receiver.received}) == 1
    # Jittered: from half of 1 s and of 2 s on.
    assert all(0.5 * 2**n <= pause <= 2**n for n, pause in enumerate(clock.pauses))


def test_two_notifications_have_two_ids(receiver, clock):
    hook = webhook(receiver, clock)
    assert hook.send({}) and hook.send({})
    assert len({headers["Idempotency-Key"] for _, headers, _ in receiver.received}) == 2


def logged(caplog):
    """Returns the log lines of the webhook alone, since a Ray of an earlier test may still log."""
    return [record.getMessage() for record in caplog.records if record.name == "jobs.cli.webhook"]


def test_it_gives_up_after_the_last_attempt(receiver, clock, caplog):
    receiver.answers = [503] * 9
    assert not webhook(receiver, clock).send({})
    assert len(receiver.received) == 5
    assert logged(caplog) == ["notify.failed host=127.0.0.1 attempts=5 error=HTTP 503"]


def test_it_gives_up_when_its_time_is_over(receiver, clock):
    receiver.answers = [503] * 9
    assert not webhook(receiver, clock, attempts=100).send({})
    assert sum(clock.pauses) < 30
    assert len(receiver.received) < 9


@pytest.mark.parametrize("status", [400, 401, 404, 410, 422])
def test_other_refusals_are_not_repeated(receiver, clock, caplog, status):
    receiver.answers = [status]
    assert not webhook(receiver, clock).send({})
    assert len(receiver.received) == 1
    assert logged(caplog) == [f"notify.failed host=127.0.0.1 attempts=1 error=HTTP {status}"]


def test_a_redirect_is_not_followed(receiver, clock, caplog):
    receiver.answers = [(status, {"Location": receiver.url}) for status in (301, 302, 303, 307, 308)]
    for _ in range(5):
        assert not webhook(receiver, clock).send({})
    assert len(receiver.received) == 5
    assert "error=HTTP 307" in caplog.text


@pytest.mark.parametrize("is_date", [False, True])
def test_a_receiver_that_wants_to_be_left_alone_is_left_alone(receiver, clock, is_date):
    value = formatdate(time.time() + 8, usegmt=True) if is_date else "7"
    receiver.answers = [(429, {"Retry-After": value})]
    assert webhook(receiver, clock).send({})
    assert 4 <= clock.pauses[0] <= 8


def test_a_receiver_that_wants_to_be_left_alone_for_longer_than_there_is_time_is_given_up(receiver, clock):
    receiver.answers = [(503, {"Retry-After": "120"})]
    assert not webhook(receiver, clock).send({})
    assert clock.pauses == [] and len(receiver.received) == 1


@pytest.mark.parametrize("value", ["soon", "-5", "", "٣", "Mon, 99 Foo 2026 00:00:00 GMT"])
def test_a_retry_after_that_means_nothing_is_passed_over(receiver, clock, value):
    receiver.answers = [(503, {"Retry-After": value.encode().decode("latin-1")})]
    assert webhook(receiver, clock).send({})
    assert clock.pauses[0] <= 1


@pytest.mark.parametrize("answer", ["silent", "trickle"])
def test_a_receiver_that_does_not_end_its_answer_times_out(receiver, clock, caplog, answer):
    receiver.answers = [answer] * 2
    began = time.monotonic()
    assert not webhook(receiver, clock, attempts=2, attempt_s=0.2).send({})
    assert time.monotonic() - began < 30
    assert len(receiver.received) == 2
    assert logged(caplog) == ["notify.failed host=127.0.0.1 attempts=2 error=TimeoutError"]


def test_a_receiver_that_is_not_there_is_a_line_in_the_log(receiver, clock, caplog):
    hook = webhook(receiver, clock)
    receiver.shutdown()
    receiver.server_close()
    assert not hook.send({})
    (line,) = logged(caplog)
    assert line == "notify.failed host=127.0.0.1 attempts=5 error=ConnectionRefusedError: Connection refused"


def test_what_is_no_json_is_a_line_in_the_log(receiver, clock, caplog):
    assert not webhook(receiver, clock).send({"a set": {1}})
    assert receiver.received == []
    assert logged(caplog) == ["notify.failed host=127.0.0.1 attempts=0 error=TypeError"]


def test_a_proxy_of_the_environment_is_asked(receiver, clock, monkeypatch):
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", receiver.url.partition("/services")[0])
    assert Webhook(url="http://receiver.invalid/hook", clock=clock, sleep=clock.sleep).send({})
    assert receiver.received[0][0] == "http://receiver.invalid/hook"


def test_neither_secret_nor_path_is_ever_shown(receiver, clock, caplog):
    caplog.set_level(logging.DEBUG)
    receiver.answers = [200, 404, (302, {"Location": receiver.url}), "hang up", 503, "silent"]
    hook = webhook(receiver, clock, attempts=2, attempt_s=0.3)
    for _ in range(5):
        hook.send({"event": "run.ended"})
    shown = caplog.text + repr(hook)
    assert "notify.sent host=127.0.0.1 attempts=1" in shown and "error=" in shown
    for hidden in (SECRET, "services", "token", "key="):
        assert hidden not in shown


@pytest.mark.parametrize(
    "url",
    ["ftp://host/hook", "file:///etc/hook", "host/hook", "https://", "http://host:port/hook", "http://[hook",
     "https://host/ho ok", "https://host/hook\n", "https://höst/hook", "https://user:hook@host/"],
)  # fmt: skip
def test_a_url_of_another_kind_is_refused_and_not_repeated(url):
    with pytest.raises(ConfigError, match="--notify-url") as caught:
        webhook_from(url, {})
    assert "hook" not in str(caught.value)


def test_it_is_off_unless_the_flag_or_the_environment_has_a_url():
    assert webhook_from(None, {}) is None
    assert webhook_from(None, {URL_VARIABLE: "", SECRET_VARIABLE: SECRET}) is None
    by_flag = webhook_from("https://flag/", {URL_VARIABLE: "https://environment/", SECRET_VARIABLE: SECRET})
    assert by_flag is not None and (by_flag.host, by_flag.secret) == ("flag", SECRET)
    by_environment = webhook_from(None, {URL_VARIABLE: "https://environment/", SECRET_VARIABLE: ""})
    assert by_environment is not None and (by_environment.host, by_environment.secret) == ("environment", None)


def test_the_body_has_a_sentence_and_the_summary():
    summary = {"status": "done", "exit_code": 0, "ok": 2, "failed": 0, "seconds": 1.4}
    assert run_ended(summary) == {"event": "run.ended", "text": "done: 2 images in 1 s", "summary": summary}


def told(receiver):
    return [json.loads(body) for _, _, body in receiver.received]


@pytest.fixture
def end(receiver, tmp_path, monkeypatch, capsys, signal_handlers):
    """Runs a command that fails before its work, with further flags; returns the exit code and the summary."""
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)

    def end(*flags, command=classify):
        places = {"--input": "gone", "--weights": "weights", "--output": "out"}
        named = [part for flag, name in places.items() for part in (flag, str(tmp_path / name))]
        code = run_command(command, [*named, *flags])
        return code, json.loads(capsys.readouterr().out.splitlines()[-1])

    return end


@pytest.mark.parametrize("command", [classify, label_dataset, evaluate])
def test_a_run_that_fails_tells_its_error_and_ends_as_it_would_have(receiver, end, command):
    code, summary = end("--notify-url", receiver.url, command=command)
    assert (code, summary["exit_code"]) == (4, 4)
    (body,) = told(receiver)
    assert body["summary"] == summary
    assert body["text"].startswith("exit 4: ")


def test_the_environment_can_name_the_webhook(receiver, end, monkeypatch):
    monkeypatch.setenv(URL_VARIABLE, receiver.url)
    assert end()[0] == 4
    assert len(told(receiver)) == 1


def test_without_a_webhook_and_in_a_dry_run_nobody_is_told(receiver, end, monkeypatch):
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    end()
    end("--notify-url", receiver.url, "--dry-run")
    assert told(receiver) == []


def test_an_address_that_cannot_be_one_is_refused_before_any_work(end):
    code, summary = end("--notify-url", "ftp://example.com/hook")
    assert code == 2
    assert "--notify-url must be one of http:// or https://" in summary["error"]


def test_a_receiver_that_refuses_changes_nothing(receiver, end):
    receiver.answers += [400]
    assert end("--notify-url", receiver.url)[0] == 4
