"""Which answers are asked for again, and for how long, on stub servers."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.storage import put, read
from pipeline.store_errors import DeniedError, StoreError, TransientError


def test_transient_answers_are_retried_and_logged(
    stub_store: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    busy = (
        lambda exchange: exchange.error(503, "SlowDown"),
        lambda exchange: exchange.error(400, "RequestTimeout"),
        lambda exchange: exchange.reply(200, b"body"),
    )
    with stub_store(*busy, retry_s=5) as (config, requests), caplog.at_level(logging.INFO):
        assert read("s3://bucket/a", config) == b"body"
    assert requests == ["GET"] * 3
    assert "store.retried attempt=2" in caplog.text and "503 SlowDown: told so" in caplog.text


def test_an_answer_that_does_not_come_is_transient(stub_store: Callable[..., Any]) -> None:
    waiting = threading.Event()

    def never(exchange: Any) -> None:
        waiting.wait(5)
        exchange.close_connection = True

    with stub_store(never, retry_s=0, timeout_s=0.3) as (config, _):
        with pytest.raises(TransientError, match="TimedOut"):
            read("s3://bucket/a", config)
        waiting.set()


def test_permanent_answers_are_not_retried(stub_store: Callable[..., Any]) -> None:
    for status, code, kind in (
        (403, "AccessDenied", DeniedError),
        (400, "InvalidArgument", StoreError),
        (501, "NotImplemented", StoreError),
    ):
        with stub_store(lambda exchange, status=status, code=code: exchange.error(status, code)) as (config, requests):
            with pytest.raises(kind, match=f"{status} {code}: told so") as caught:
                put("s3://bucket/a", b"x", config, if_absent=True)
            assert type(caught.value) is kind and requests == ["PUT"]
    redirected = stub_store(lambda exchange: exchange.error(301, "PermanentRedirect"))
    with redirected as (config, _), pytest.raises(StoreError, match="set AWS_REGION"):
        read("s3://bucket/a", config)
