"""One run at a time: the lease on an output, an object that is taken, renewed and given back by conditional writes.

`_lease.json` says who holds the output. Its name is used for ever: a lease is given back by writing "released" into it,
since a name that is free could be taken by a late create-only write. Every write carries a new nonce, because equal
bodies have equal ETags, and an If-Match on one of two equal bodies would have two winners.

**Whose clock.** Nobody's, where it matters. Clocks of machines differ, so the time of renewal that a lease names
decides nothing. A contender watches the object: if its ETag has not changed for as long as the holder promised to renew
it, and a quarter more, by the contender's own monotonic clock, then the holder has not renewed it for as long. The
holder measures the same time by its own monotonic clock, from before its last renewal was sent; so it gives up first. A
live holder changes the ETag with every heartbeat, and no clock that is hours off makes it look dead.

The times in the object serve two purposes. People read them. And they say whether watching is worth while: a run that
is not to wait refuses at once where the lease was renewed lately, by both clocks together; where it looks run out, or
comes from the future, the run watches. The first change shows that the holder is alive, and the run refuses then.

**A dead holder on the same machine** needs no watching: the same boot, the same process table, and no such process.

**What a lease cannot do.** None can stop a process that was suspended between its last look and its write. That no row
is lost or doubled rests on create-only names and If-Match, which hold for any number of writers. The lease keeps two
runs from doing the same work and from planning over each other's changes; and with `Fence`, a run that lost its lease
goes on for no longer than one request takes.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from pipeline.errors import ConfigError, LeaseHeldError, LeaseLostError, OutputError, PipelineError
from pipeline.lease.fence import Fence, lease_lost
from pipeline.lease.holder import this_process
from pipeline.lease.record import LeaseRecord, State, clock_text, find_lease
from pipeline.output.layout import LEASE_FILE
from pipeline.store.errors import ChangedError, ExistsError, NotFoundError, StoreError
from pipeline.store.storage import StoreConfig, put
from pipeline.store.uris import join_uri, shown

logger = logging.getLogger(__name__)

# How much longer than the holder's promise a contender watches: room for the attempt in which the holder gives up.
_WATCH_FACTOR = 1.25
# Renewals that must fit into the time a lease lasts, even if each of them hangs.
_MIN_ATTEMPTS = 6
_MAX_POLL_S = 5.0
_LOG_EVERY_S = 30.0
# Lost races in a row after which something else must be wrong with the name.
_MAX_RACES = 20
# Ray kills a job three seconds after it told it to stop.
_JOIN_S = 1.0


@dataclass(frozen=True, kw_only=True)
class LeaseTiming:
    """How often a lease is renewed, and how long it lasts without."""

    heartbeat_s: float = 10.0
    expiry_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat_s < self.expiry_s:
            raise ConfigError("a lease must be renewed before it runs out")


class Lease:
    """One run's lease on its output: `take` it in a `with` block, at whose end it is given back.

    Attributes:
        fence: for the processes that write.
        timing: of this lease.
        lost: set by the heartbeat when somebody else has the lease, or it could not be renewed for `expiry_s`.
    """

    def __init__(
        self,
        output: str,
        store: StoreConfig,
        run_id: str,
        timing: LeaseTiming | None = None,
        on_lost: Callable[[], object] = lambda: None,
    ) -> None:
        """Nothing is read or written here.

        Args:
            on_lost: called once, on the heartbeat's thread, after `lost` was set.
        """
        self._output, self._store, self._run_id, self._on_lost = output, store, run_id, on_lost
        self._uri = join_uri(output, LEASE_FILE)
        self.timing = timing or LeaseTiming()
        # The heartbeat has a patience of its own: a request that hangs must leave time for others.
        timeout_s = min(store.timeout_s, self.timing.expiry_s / _MIN_ATTEMPTS)
        self._hasty_store = replace(store, deadline_s=0.0, timeout_s=timeout_s)
        self._holder = this_process()
        self._since = datetime.now(UTC)
        self._etag: str | None = None
        self._renewed_s = 0.0
        self._error: LeaseLostError | None = None
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lease-heartbeat", daemon=True)
        self.lost = threading.Event()
        self.fence = Fence(output=output, store=store, holding=secrets.token_hex(8))

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Gives the lease back.

        Raises:
            LeaseLostError: the block was interrupted, and the lease is lost: that is the reason to tell.
        """
        self._ended.set()
        if self._heart.is_alive():
            self._heart.join(_JOIN_S)
        if self._etag is not None and not self.lost.is_set():
            self._give_back()
        if kind is KeyboardInterrupt:
            self.check()

    def take(self, wait_s: float = 0.0) -> None:
        """Returns when this run holds the lease; from then on a thread renews it.

        Args:
            wait_s: how long to wait for another run's end.

        Raises:
            LeaseHeldError: another run holds it.
            OutputError: the object cannot be read or written, or is no lease.
        """
        try:
            self._take(wait_s)
        except StoreError as error:
            raise OutputError(f"the output's lease cannot be taken: {error}") from error
        self._heart.start()

    def check(self) -> None:
        """Returns unless `lost` is set; asks no store.

        Raises:
            LeaseLostError: with the reason.
        """
        if self._error is not None:
            raise self._error

    def _take(self, wait_s: float) -> None:
        started, last_line, races = time.monotonic(), float("-inf"), 0
        first_etag, watched_etag, watched_since = None, None, started
        while True:
            found = find_lease(self._output, self._store)
            now = time.monotonic()
            record, etag = found or (None, None)
            first_etag = first_etag or etag
            if etag != watched_etag:
                watched_etag, watched_since = etag, now
            why_free = _why_free(record, now - watched_since)
            if record is None or why_free:
                if self._try_to_take(etag):
                    logger.info("lease.taken uri=%s why=%s before=%s", self._uri, why_free, record)
                    return
                races += 1
                if races == _MAX_RACES:
                    raise OutputError(f"{shown(self._uri)} cannot be written; something else is under its name")
                continue
            if now - started >= wait_s and (etag != first_etag or record.renewed_lately()):
                raise _held(self._output, record)
            if now - last_line >= _LOG_EVERY_S:
                last_line = now
                logger.info(
                    "lease.waiting for=%s waited_s=%.0f unchanged_s=%.0f", record, now - started, now - watched_since
                )
            time.sleep(min(self.timing.heartbeat_s / 2, _MAX_POLL_S))

    def _try_to_take(self, etag: str | None) -> bool:
        """False if somebody else was quicker."""
        self._since = datetime.now(UTC)
        try:
            self._write("held", etag, self._store)
        except (ExistsError, ChangedError, NotFoundError):
            return False
        return True

    def _write(self, state: State, etag: str | None, store: StoreConfig) -> None:
        """One conditional write over the version with this ETag; None creates."""
        sent_s = time.monotonic()
        record = LeaseRecord(
            state=state,
            holding=self.fence.holding,
            nonce=secrets.token_hex(8),
            run_id=self._run_id,
            holder=self._holder,
            since=self._since,
            renewed_at=datetime.now(UTC),
            expires_after_s=self.timing.expiry_s,
        )
        self._etag = put(self._uri, record.to_json(), store, if_absent=etag is None, if_match=etag)
        self._renewed_s = sent_s

    def _rewrite(self, state: State) -> None:
        """Writes over our last version, or over one of ours whose answer was lost.

        Raises:
            LeaseLostError: the lease is not ours any more.
            StoreError, OutputError: the write failed.
        """
        try:
            self._write(state, self._etag, self._hasty_store)
        except (ChangedError, NotFoundError):
            found = find_lease(self._output, self._hasty_store)
            if found is None:
                raise lease_lost(self._output, "was removed") from None
            record, etag = found
            if record.holding != self.fence.holding:
                raise lease_lost(self._output, f"went to {record}, as nothing was heard of this run") from None
            # A heartbeat that was under way when the lease was given back must not take it again.
            if record.state == "held":
                self._write(state, etag, self._hasty_store)

    def _beat(self) -> None:
        pause_s = self.timing.heartbeat_s
        try:
            while not self._ended.wait(pause_s):
                pause_s = self.timing.heartbeat_s
                try:
                    self._rewrite("held")
                except StoreError as error:
                    silent_s = time.monotonic() - self._renewed_s
                    logger.warning("lease.not_renewed silent_s=%.1f error=%s", silent_s, error)
                    if silent_s > self.timing.expiry_s:
                        raise lease_lost(self._output, f"could not be renewed for {silent_s:.0f} s: {error}") from None
                    pause_s /= 4
        except LeaseLostError as error:
            self._lose(error)
        except PipelineError as error:
            self._lose(lease_lost(self._output, f"could not be renewed: {error}"))
        finally:
            # Whatever else ended this thread: a lease that nobody renews is lost.
            if not self._ended.is_set() and not self.lost.is_set():
                self._lose(lease_lost(self._output, "is not renewed any more: its heartbeat ended"))

    def _lose(self, error: LeaseLostError) -> None:
        logger.error("lease.lost error=%s", error)
        self._error = error
        self.lost.set()
        self._on_lost()

    def _give_back(self) -> None:
        """Writes "released"; where that fails, the lease runs out by itself."""
        try:
            self._rewrite("released")
        except (StoreError, PipelineError) as error:
            logger.warning("lease.not_given_back error=%s", error)


def _why_free(record: LeaseRecord | None, unchanged_s: float) -> str | None:
    """Why a lease that was not seen to change for so long may be taken; None if it may not."""
    if record is None:
        return "new"
    if record.state == "released":
        return "released"
    if record.holder.is_surely_dead():
        return "its process is gone"
    if unchanged_s > _WATCH_FACTOR * record.expires_after_s:
        return f"not renewed while watched for {unchanged_s:.0f} s"
    return None


def _held(output: str, record: LeaseRecord) -> LeaseHeldError:
    runs_out = record.renewed_at + timedelta(seconds=record.expires_after_s)
    return LeaseHeldError(
        f"{shown(output)} is being written by {record}, last heard of at {clock_text(record.renewed_at)}; wait for its "
        "end with --wait-for-lease-s SECONDS, or stop it. If it is dead, a run that starts after "
        f"{clock_text(runs_out)} takes over"
    )
