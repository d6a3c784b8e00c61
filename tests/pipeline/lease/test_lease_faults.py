"""A lease on a store that fails: what is lost, and what is not."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pipeline.errors import LeaseLostError, OutputError
from pipeline.lease.lease import Lease
from pipeline.store.store_path import StorePath
from tests.support.leases import CONFIG, LIVE, QUIET, SHORT, found, record
from tests.support.waiting import PATIENCE_S, eventually


def test_a_store_that_fails_for_longer_than_the_lease_lasts_has_cost_it(
    stub_store: Callable[..., Any], keeper: Callable[..., Any]
) -> None:
    store = keeper()
    failing = threading.Event()

    def answer(exchange: Any) -> None:
        exchange.error(503, "SlowDown") if failing.is_set() else store(exchange)

    with stub_store(answer) as (config, _), Lease(StorePath("s3://bucket/out", config), "run-1", SHORT) as lease:
        lease.take()
        failing.set()
        started = time.monotonic()
        assert lease.lost.wait(PATIENCE_S)
        # It counts from the last renewal.
        assert time.monotonic() - started >= SHORT.expiry_s / 2
        with pytest.raises(LeaseLostError, match=r"could not be renewed for \d+ s"):
            lease.check()
        with pytest.raises(LeaseLostError, match=r"could not be read: .* 503 SlowDown"):
            replace(lease.fence, output=lease.fence.output.bounded(deadline_s=0.1)).check()


def test_a_store_that_fails_for_a_while_costs_nothing(
    stub_store: Callable[..., Any], keeper: Callable[..., Any]
) -> None:
    store, failures = keeper(), []

    def answer(exchange: Any) -> None:
        if failures:
            failures.pop()
            exchange.error(503, "SlowDown")
        else:
            store(exchange)

    with stub_store(answer) as (config, _), Lease(StorePath("s3://bucket/out", config), "run-1", LIVE) as lease:
        lease.take()
        failures += [None] * 3
        eventually(lambda: not failures)
        before = store.etag
        eventually(lambda: store.etag != before)
        assert not lease.lost.is_set()
        lease.fence.check()
    assert json.loads(store.body)["state"] == "released"


@pytest.mark.parametrize("when", ["taken", "renewed", "given back"])
def test_a_write_whose_answer_was_lost_is_known_again(
    stub_store: Callable[..., Any], keeper: Callable[..., Any], when: str
) -> None:
    store = keeper(lost=1 if when == "taken" else 0)
    timing = LIVE if when == "renewed" else QUIET
    with stub_store(store) as (config, _):
        with Lease(StorePath("s3://bucket/out", config), "run-1", timing) as lease:
            lease.take()
            assert store.lost == (0 if when == "taken" else -1)
            if when != "taken":
                store.lost = 1
            if when == "renewed":
                eventually(lambda: store.lost < 0)
                before = store.etag
                eventually(lambda: store.etag != before)
            assert not lease.lost.is_set()
            lease.fence.check()
        # A last answer that is lost is not asked for again; what it answered is there.
        assert json.loads(store.body)["state"] == "released"


def test_a_lease_that_cannot_be_given_back_runs_out_by_itself(
    stub_store: Callable[..., Any], keeper: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    store, failing = keeper(), threading.Event()

    def answer(exchange: Any) -> None:
        exchange.error(403, "AccessDenied") if failing.is_set() else store(exchange)

    with stub_store(answer) as (config, _):
        with Lease(StorePath("s3://bucket/out", config), "run-1", QUIET) as lease:
            lease.take()
            failing.set()
        assert "lease.not_given_back" in caplog.text
        assert json.loads(store.body)["state"] == "held"


def test_a_lease_that_cannot_be_written_is_an_output_that_cannot_be_written(
    stub_store: Callable[..., Any], keeper: Callable[..., Any]
) -> None:
    store = keeper()

    def answer(exchange: Any) -> None:
        exchange.error(403, "AccessDenied") if exchange.command == "PUT" else store(exchange)

    with stub_store(answer) as (config, _), pytest.raises(OutputError, match=r"lease cannot be taken: .*AccessDenied"):
        Lease(StorePath("s3://bucket/out", config), "run-1").take()


def test_a_folder_under_the_leases_name_is_told_and_not_waited_for(tmp_path: Any) -> None:
    (tmp_path / "_lease.json").mkdir()
    with pytest.raises(OutputError, match="something else is under its name"):
        Lease(StorePath(f"file://{tmp_path}", CONFIG), "run-1").take()


def test_a_heartbeat_that_ends_for_a_reason_nobody_foresaw_has_lost_the_lease(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", ended.append)
    with Lease(StorePath(root, CONFIG), "run-1", LIVE) as lease:
        lease.take()
        monkeypatch.setattr(StorePath, "put", None)
        assert lease.lost.wait(PATIENCE_S)
        with pytest.raises(LeaseLostError, match="its heartbeat ended"):
            lease.check()
    eventually(lambda: bool(ended))
    assert ended[0].exc_type is TypeError


def test_a_heartbeat_under_way_when_the_lease_is_given_back_does_not_take_it_again(root: str) -> None:
    with Lease(StorePath(root, CONFIG), "run-1", QUIET) as lease:
        lease.take()
        stale_etag = found(root)[1]
    assert record(root).state == "released"
    lease._etag = stale_etag
    lease._rewrite("held")
    assert record(root).state == "released"
