"""Requests that are repeated, and for how long, on stub servers."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.store import retry as store_requests
from pipeline.store.errors import DeniedError, StoreError, TransientError, from_answer
from pipeline.store.retry import MAX_PAUSE_S, retrying
from pipeline.store.store_path import StorePath


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s, self.pauses_s = 1000.0, list[float]()

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.pauses_s.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(store_requests, "time", clock)
    return clock


def failing(clock: Clock, error: Exception, takes_s: float = 0.0, times: int | None = None) -> Callable[[], str]:
    """A request that takes its time and fails, for ever or so many times."""
    asked = 0

    def request() -> str:
        nonlocal asked
        asked += 1
        clock.now_s += takes_s
        if times is None or asked <= times:
            raise error
        return "answer"

    return request


def test_pauses_grow_to_a_limit_and_are_never_alike(clock: Clock) -> None:
    with pytest.raises(TransientError, match="in 600 s"):
        retrying("s3://b/a", 600, failing(clock, TransientError("busy")))
    assert clock.pauses_s[0] <= 0.2 and all(pause <= MAX_PAUSE_S for pause in clock.pauses_s)
    assert min(clock.pauses_s[8:-1]) >= MAX_PAUSE_S / 2
    assert len(set(clock.pauses_s)) == len(clock.pauses_s)


@pytest.mark.parametrize(("deadline_s", "takes_s"), [(0, 0), (0, 30), (5, 0), (5, 2), (5, 30), (86_400, 1)])
def test_the_last_attempt_begins_no_later_than_the_deadline(clock: Clock, deadline_s: float, takes_s: float) -> None:
    with pytest.raises(TransientError, match="gave up after"):
        retrying("s3://b/a", deadline_s, failing(clock, TransientError("busy"), takes_s))
    # And no earlier, so that a store that comes back in time is not given up.
    assert max(deadline_s, takes_s) <= clock.now_s - 1000 <= deadline_s + takes_s


@pytest.mark.parametrize(
    ("status", "code", "header", "wait_s"),
    [
        (503, "SlowDown", "7", 7),
        (429, "", " 7 ", 7),
        (500, "InternalError", "7", 7),
        (503, "SlowDown", None, 0.5),
        (503, "", "Wed, 21 Oct 2015 07:28:00 GMT", 0.5),
        (400, "ThrottlingException", None, 0.5),
        (500, "InternalError", None, 0),
    ],
)
def test_a_store_is_left_alone_for_as_long_as_it_asks(
    clock: Clock, status: int, code: str, header: str | None, wait_s: float
) -> None:
    error = from_answer("s3://b/a", status, code, "", retry_after=header)
    assert isinstance(error, TransientError)
    assert retrying("s3://b/a", 60, failing(clock, error, times=2)) == "answer"
    assert all(wait_s < pause <= wait_s + 0.4 for pause in clock.pauses_s)


def test_a_store_that_asks_for_more_than_the_deadline_is_asked_a_last_time_then(clock: Clock) -> None:
    error = TransientError("busy", wait_s=120)
    assert retrying("s3://b/a", 60, failing(clock, error, times=1)) == "answer"
    assert clock.pauses_s == [60]
    with pytest.raises(TransientError, match="gave up after 2 attempts in 60 s"):
        retrying("s3://b/a", 60, failing(clock, error))


def test_an_upload_that_was_damaged_on_its_way_is_sent_again(stub_store: Callable[..., Any]) -> None:
    for code in ("IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"):
        answers = (lambda exchange, code=code: exchange.error(400, code), lambda exchange: exchange.reply(200))
        with stub_store(*answers) as (config, requests):
            StorePath("s3://bucket/a", config).put(b"x", if_absent=True)
            assert requests == ["PUT", "PUT"]


def test_transient_answers_are_retried_and_logged(
    stub_store: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    busy = (
        lambda exchange: exchange.error(503, "SlowDown"),
        lambda exchange: exchange.error(400, "RequestTimeout"),
        lambda exchange: exchange.reply(200, b"body"),
    )
    with stub_store(*busy, deadline_s=5) as (config, requests), caplog.at_level(logging.INFO):
        assert StorePath("s3://bucket/a", config).read() == b"body"
    assert requests == ["GET"] * 3
    assert "store.retried attempt=2" in caplog.text and "503 SlowDown: told so" in caplog.text


def test_an_answer_that_does_not_come_is_transient(stub_store: Callable[..., Any]) -> None:
    waiting = threading.Event()

    def never(exchange: Any) -> None:
        waiting.wait(5)
        exchange.close_connection = True

    with stub_store(never, deadline_s=0, timeout_s=0.3) as (config, _):
        with pytest.raises(TransientError, match="TimedOut"):
            StorePath("s3://bucket/a", config).read()
        waiting.set()


def test_permanent_answers_are_not_retried(stub_store: Callable[..., Any]) -> None:
    for status, code, kind in (
        (403, "AccessDenied", DeniedError),
        (400, "InvalidArgument", StoreError),
        (501, "NotImplemented", StoreError),
    ):
        with stub_store(lambda exchange, status=status, code=code: exchange.error(status, code)) as (config, requests):
            with pytest.raises(kind, match=f"{status} {code}: told so") as caught:
                StorePath("s3://bucket/a", config).put(b"x", if_absent=True)
            assert type(caught.value) is kind and requests == ["PUT"]
    redirected = stub_store(lambda exchange: exchange.error(301, "PermanentRedirect"))
    with redirected as (config, _), pytest.raises(StoreError, match="set AWS_REGION"):
        StorePath("s3://bucket/a", config).read()
