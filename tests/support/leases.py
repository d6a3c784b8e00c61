"""Leases of runs on other machines, for the tests of what a run makes of them."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.lease.holder import Holder
from pipeline.lease.lease import LeaseTiming
from pipeline.lease.record import LeaseRecord, find_lease
from pipeline.store.config import StoreConfig
from pipeline.store.store_path import StorePath
from pipeline.store.uris import join_uri

CONFIG = StoreConfig(deadline_s=1, timeout_s=10)
ELSEWHERE = Holder(
    host="far-away", pid=77, boot_id="another", pid_namespace="pid:[1]", started_ticks=1, submission_id="raysubmit_x"
)
# Renewed every 50 ms, and a busy machine has ten seconds to do it.
LIVE = LeaseTiming(heartbeat_s=0.05, expiry_s=10.0)
SHORT = LeaseTiming(heartbeat_s=0.05, expiry_s=1.0)
# One whose heartbeat stays away from the test.
QUIET = LeaseTiming(heartbeat_s=1000.0, expiry_s=2000.0)


def uri_of(root: str) -> str:
    """Where an output's lease is."""
    return join_uri(root, "_lease.json")


def found(root: str) -> tuple[LeaseRecord, str]:
    """The lease that must be there, and its ETag."""
    lease = find_lease(StorePath(root, CONFIG))
    assert lease is not None
    return lease


def record(root: str) -> LeaseRecord:
    """The lease that must be there."""
    return found(root)[0]


def foreign(**changes: Any) -> LeaseRecord:
    """A lease that a run on another machine took an hour ago and renewed just now."""
    now = datetime.now(UTC)
    made = LeaseRecord(
        state="held", holding="theirs", nonce="1", run_id="their-run", holder=ELSEWHERE, since=now - timedelta(hours=1),
        renewed_at=now, expires_after_s=60.0,
    )  # fmt: skip
    return replace(made, **changes)


def write(root: str, lease: LeaseRecord) -> None:
    """Makes it the output's lease, whatever is there."""
    StorePath(uri_of(root), CONFIG).put(lease.to_json())


class Clock:
    """Monotonic time that passes only while somebody sleeps, and what another run does meanwhile."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.every_poll: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        """The time, in seconds."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Lets the time pass."""
        self.now_s += seconds
        assert self.now_s < 10_000, "nobody waits for so long"
        self.every_poll()

    def let_renew(self, root: str, lease: LeaseRecord) -> None:
        """From now on the lease is renewed every ten seconds, by the clock that it goes by."""
        renewed_s = self.now_s
        ahead = lease.renewed_at - datetime.now(UTC)

        def renew() -> None:
            nonlocal renewed_s
            if self.now_s - renewed_s >= 10:
                renewed_s = self.now_s
                write(root, replace(lease, nonce=str(self.now_s), renewed_at=datetime.now(UTC) + ahead))

        write(root, lease)
        self.every_poll = renew
