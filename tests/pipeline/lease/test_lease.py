"""One run at a time: taken, refused, waited for, renewed, taken over, lost, given back; on the disk and on S3."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from pipeline.errors import ConfigError, LeaseHeldError, LeaseLostError, OutputError
from pipeline.lease import lease as lease_module
from pipeline.lease.lease import Lease, LeaseTiming
from pipeline.lease.record import find_lease
from pipeline.store.store_path import StorePath
from tests.support.leases import (
    CONFIG,
    LIVE,
    QUIET,
    Clock,
    foreign,
    found,
    record,
    uri_of,
    write,
)
from tests.support.waiting import PATIENCE_S, eventually


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time by which a lease is waited for and watched."""
    made = Clock()
    monkeypatch.setattr(lease_module, "time", made)
    return made


# Taken, renewed, given back.


def test_a_lease_says_who_holds_it_and_is_given_back_without_freeing_its_name(root: str) -> None:
    with Lease(StorePath(root, CONFIG), "run-1", QUIET) as lease:
        assert find_lease(StorePath(root, CONFIG)) is None
        lease.take()
        held = json.loads(StorePath(uri_of(root), CONFIG).read())
        assert (held["state"], held["run_id"], held["expires_after_s"]) == ("held", "run-1", QUIET.expiry_s)
        assert held["holder"]["pid"] and held["holder"]["host"]
        assert held["since"] <= held["renewed_at"] <= datetime.now(UTC).isoformat()
        lease.check()
        lease.fence.check()
    after = record(root)
    assert (after.state, after.run_id, after.holding) == ("released", "run-1", held["holding"])
    assert after.nonce != held["nonce"]


def test_a_lease_that_was_never_taken_leaves_nothing(root: str) -> None:
    with Lease(StorePath(root, CONFIG), "run-1"):
        pass
    assert find_lease(StorePath(root, CONFIG)) is None


def test_a_lease_is_given_back_when_the_run_fails(root: str) -> None:
    with pytest.raises(RuntimeError, match="the run"), Lease(StorePath(root, CONFIG), "run-1", LIVE) as lease:
        lease.take()
        raise RuntimeError("the run")
    assert record(root).state == "released"


def test_a_released_lease_is_taken_at_once(root: str) -> None:
    write(root, foreign(state="released", expires_after_s=3600.0))
    with Lease(StorePath(root, CONFIG), "run-2", QUIET) as lease:
        lease.take()
        assert record(root).run_id == "run-2"


def test_the_heartbeat_renews_under_new_nonces_and_the_same_holding(root: str) -> None:
    with Lease(StorePath(root, CONFIG), "run-1", LIVE) as lease:
        lease.take()
        first, first_etag = found(root)
        nonces = {first.nonce}
        eventually(lambda: len(nonces.add(record(root).nonce) or nonces) >= 4)  # type: ignore[func-returns-value]
        now, etag = found(root)
        assert etag != first_etag
        assert (now.holding, now.since) == (first.holding, first.since)
        assert now.renewed_at > first.renewed_at
        assert not lease.lost.is_set()
    assert record(root).state == "released"
    assert not [thread for thread in threading.enumerate() if thread.name == "lease-heartbeat"]


def test_a_lease_that_is_not_renewed_before_it_runs_out_is_a_wrong_config() -> None:
    with pytest.raises(ConfigError):
        LeaseTiming(heartbeat_s=60, expiry_s=60)


# Refused, waited for.


def test_a_second_run_is_told_who_holds_the_output_and_since_when(root: str) -> None:
    theirs = foreign()
    write(root, theirs)
    before = StorePath(uri_of(root), CONFIG).read()
    with pytest.raises(LeaseHeldError) as refused, Lease(StorePath(root, CONFIG), "run-2") as lease:
        lease.take()
    said = str(refused.value)
    assert "run their-run (host far-away, pid 77, Ray job raysubmit_x) since " in said
    assert f"since {theirs.since:%Y-%m-%dT%H:%M:%SZ}, last heard of at {theirs.renewed_at:%Y-%m-%dT%H:%M:%SZ}" in said
    assert "--wait-for-lease-s" in said
    assert f"after {theirs.renewed_at + timedelta(seconds=60):%Y-%m-%dT%H:%M:%SZ} takes over" in said
    assert refused.value.exit_code == 10
    assert StorePath(uri_of(root), CONFIG).read() == before


def test_of_twelve_runs_at_once_one_takes_the_lease(root: str) -> None:
    for _ in range(2):  # the first time there is no object, then a released one
        barrier, leases = (
            threading.Barrier(12),
            [Lease(StorePath(root, CONFIG), f"run-{number}", QUIET) for number in range(12)],
        )

        def contend(lease: Lease, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            try:
                lease.take()
            except LeaseHeldError:
                return False
            return True

        with ThreadPoolExecutor(12) as pool:
            took = list(pool.map(contend, leases))
        assert took.count(True) == 1
        winner = leases[took.index(True)]
        assert record(root).holding == winner.fence.holding
        winner.fence.check()
        for lease in leases:
            lease.__exit__(None, None, None)
        assert record(root).state == "released"


def test_a_run_that_waits_takes_the_lease_when_it_is_given_back(root: str, caplog: pytest.LogCaptureFixture) -> None:
    first, second = Lease(StorePath(root, CONFIG), "run-1", LIVE), Lease(StorePath(root, CONFIG), "run-2", LIVE)
    with ThreadPoolExecutor(1) as pool, caplog.at_level("INFO", "pipeline.lease.lease"):
        with first:
            first.take()
            taken = pool.submit(second.take, PATIENCE_S)
            eventually(lambda: "lease.waiting" in caplog.text)
            assert "for=run run-1 (host" in caplog.text
            assert not taken.done()
        with second:
            taken.result()
            assert record(root).run_id == "run-2"
    assert caplog.text.count("lease.waiting") == 1


def test_a_run_waits_no_longer_than_it_was_told(root: str, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    clock.let_renew(root, foreign())
    with pytest.raises(LeaseHeldError), caplog.at_level("INFO", "pipeline.lease.lease"):
        Lease(StorePath(root, CONFIG), "run-2").take(wait_s=100)
    assert clock.now_s == 1100
    assert caplog.text.count("lease.waiting for=run their-run (host far-away") == 4


# Taken over, or not.


def test_a_dead_run_on_the_same_machine_is_taken_over_at_once(root: str) -> None:
    with Lease(StorePath(root, CONFIG), "run-1", QUIET) as first:
        first.take()
        with pytest.raises(LeaseHeldError):
            Lease(StorePath(root, CONFIG), "run-2", QUIET).take()
        # The same process table says now that there is no such process.
        gone = replace(record(root).holder, started_ticks=1)
        write(root, replace(record(root), holder=gone))
        with Lease(StorePath(root, CONFIG), "run-2", QUIET) as second:
            second.take()
            assert record(root).run_id == "run-2"
            with pytest.raises(LeaseLostError):
                first.fence.check()
            second.fence.check()


@pytest.mark.parametrize("off_s", [-61, -3600, 3600])
def test_a_dead_run_elsewhere_is_taken_over_after_its_lease_was_watched_running_out(
    root: str, clock: Clock, off_s: int
) -> None:
    write(root, foreign(renewed_at=datetime.now(UTC) + timedelta(seconds=off_s)))
    with Lease(StorePath(root, CONFIG), "run-2") as lease:
        lease.take()
        assert 1060 < clock.now_s <= 1080
        assert record(root).run_id == "run-2"


def test_a_lease_that_was_renewed_a_moment_ago_is_watched_only_by_who_waits(root: str, clock: Clock) -> None:
    write(root, foreign())
    with pytest.raises(LeaseHeldError):
        Lease(StorePath(root, CONFIG), "run-2").take()
    assert clock.now_s == 1000
    with pytest.raises(LeaseHeldError):
        Lease(StorePath(root, CONFIG), "run-3").take(wait_s=40)
    with Lease(StorePath(root, CONFIG), "run-4") as lease:
        lease.take(wait_s=100)
        assert 1040 + 60 < clock.now_s <= 1040 + 80
        assert record(root).run_id == "run-4"


@pytest.mark.parametrize("off_s", [-3600, 3600])
def test_a_live_run_whose_clock_is_off_is_not_taken_over(root: str, clock: Clock, off_s: int) -> None:
    clock.let_renew(root, foreign(renewed_at=datetime.now(UTC) + timedelta(seconds=off_s)))
    with pytest.raises(LeaseHeldError, match="their-run"):
        Lease(StorePath(root, CONFIG), "run-2").take()
    assert clock.now_s <= 1015, "the first renewal shows that it lives"
    with pytest.raises(LeaseHeldError, match="their-run"):
        Lease(StorePath(root, CONFIG), "run-2").take(wait_s=300)
    assert record(root).run_id == "their-run"


def test_a_live_run_whose_clock_stands_still_is_not_taken_over(root: str, clock: Clock) -> None:
    """Its ETag changes all the same, since no two writes are equal."""
    start = datetime.now(UTC) - timedelta(hours=1)
    with Lease(StorePath(root, CONFIG), "run-1", QUIET) as lease:
        lease._write("held", None, StorePath(root, CONFIG))
        first_etag = found(root)[1]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pipeline.lease.lease.datetime", SimpleNamespace(now=lambda zone: start))
            lease._rewrite("held")
            second_etag = found(root)[1]
            lease._rewrite("held")
        assert len({first_etag, second_etag, found(root)[1]}) == 3
        assert record(root).renewed_at == start


def test_two_runs_that_wait_for_a_dead_one_do_not_both_take_it_over(root: str) -> None:
    write(root, foreign(renewed_at=datetime.now(UTC) - timedelta(hours=1), expires_after_s=0.3))
    leases = [Lease(StorePath(root, CONFIG), f"run-{number}", LIVE) for number in range(2)]

    def contend(lease: Lease) -> bool:
        try:
            lease.take()
        except LeaseHeldError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(contend, leases)) == [False, True]
    for lease in leases:
        lease.__exit__(None, None, None)


# Lost.


def test_a_heartbeat_that_finds_another_holder_says_so_once_and_stops(root: str) -> None:
    told = []
    with Lease(StorePath(root, CONFIG), "run-1", LIVE, on_lost=lambda: told.append(1)) as lease:
        lease.take()
        lease.check()
        write(root, foreign())
        assert lease.lost.wait(PATIENCE_S)
        eventually(lambda: bool(told))
        with pytest.raises(LeaseLostError, match=r"went to run their-run \(host far-away, pid 77") as lost:
            lease.check()
        assert lost.value.exit_code == 9
        left = StorePath(uri_of(root), CONFIG).read()
    assert StorePath(uri_of(root), CONFIG).read() == left, "who lost a lease does not give it back"
    assert told == [1]


def test_a_heartbeat_whose_object_was_removed_has_lost_the_lease(root: str) -> None:
    with Lease(StorePath(root, CONFIG), "run-1", LIVE) as lease:
        lease.take()
        StorePath(uri_of(root), CONFIG).delete()
        assert lease.lost.wait(PATIENCE_S)
        with pytest.raises(LeaseLostError, match="was removed"):
            lease.check()
    assert find_lease(StorePath(root, CONFIG)) is None


@pytest.mark.parametrize("body", [b"", b"{}", b"not json", b"[]", b'{"state": "held"}', b"\xff\xfe"])
def test_what_is_no_lease_is_left_alone(root: str, body: bytes) -> None:
    StorePath(uri_of(root), CONFIG).put(body)
    with pytest.raises(OutputError, match=r"_lease\.json is no lease"):
        Lease(StorePath(root, CONFIG), "run-1").take()
    assert StorePath(uri_of(root), CONFIG).read() == body
    with pytest.raises(LeaseLostError, match="could not be read"):
        Lease(StorePath(root, CONFIG), "run-1").fence.check()
