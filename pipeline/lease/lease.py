"""One run at a time: the lease on an output, an object that is taken, renewed and given back by conditional writes.

`_lease.json` names the run that holds the output. The object is never removed: a run gives the lease back by writing
"released" into the object, since a late create-only write could take a free name. Every write has a new nonce: equal
bodies have equal ETags, and an If-Match on one of two equal bodies could succeed for two runs.

**Clocks.** The clocks of machines differ, so the time of renewal in a lease cannot show that a holder is dead. Another
run that wants the lease, a contender, watches the object by its own monotonic clock. The holder promises to renew the
lease within `expires_after_s`. If the ETag does not change for 1.25 times as long, the contender takes the lease. The
holder measures `expires_after_s` by its own monotonic clock, from before it sent its last renewal, so the holder gives
up first. A live holder changes the ETag with every heartbeat, and does not look dead even if its clock is wrong by
hours.

The times in the object serve two purposes. People read the times. And the times decide whether a contender that may not
wait (`wait_s` is 0) watches at all. If the lease was renewed lately, as far as the clocks of both machines agree, the
contender gives up at once. If the lease looks expired, or its time lies in the future, the contender watches; the first
change of the ETag shows that the holder lives, and the contender gives up then.

**A dead holder on the same machine** needs no watching: boot and process table are those of the contender, and the
process does not exist.

**Limits of a lease.** No lease stops a process that is suspended between its last check and its write. Create-only
names and If-Match, which work for any number of writers, keep rows from being lost or doubled. The lease keeps two runs
from doing the same work, and from planning over each other's changes. With `Fence`, a run that lost its lease continues
for no longer than one request takes.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipeline.errors import ConfigError, LeaseHeldError, LeaseLostError, OutputError, PipelineError
from pipeline.lease.fence import Fence, lease_lost
from pipeline.lease.holder import current_process
from pipeline.lease.record import LeaseRecord, State, clock_text, find_lease
from pipeline.output.layout import LEASE_FILE
from pipeline.store.errors import ChangedError, ExistsError, NotFoundError, StoreError
from pipeline.store.store_path import StorePath

logger = logging.getLogger(__name__)

# A contender watches longer than the holder promised by this factor, so that the holder has time to give up.
_WATCH_FACTOR = 1.25
# Renewals that must fit into the expiry of a lease, even if each of them hangs.
_MIN_ATTEMPTS = 6
_MAX_POLL_S = 5.0
_LOG_EVERY_S = 30.0
# Lost races in a row, after which something other than a run must occupy the name.
_MAX_RACES = 20
# Time that the heartbeat gets to end: Ray kills a job three seconds after asking the job to stop.
_JOIN_S = 1.0


@dataclass(frozen=True, kw_only=True)
class LeaseTiming:
    """How often a lease is renewed, and how long it lasts without a renewal.

    Attributes:
        heartbeat_s: Seconds between two renewals.
        expiry_s: Seconds without a renewal after which the lease is lost.
    """

    heartbeat_s: float = 10.0
    expiry_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat_s < self.expiry_s:
            raise ConfigError("a lease must be renewed before it runs out")


class Lease:
    """The lease of one run on its output. Call `take` in a `with` block; the end of the block gives the lease back.

    Attributes:
        fence: Check that processes make before they write.
        timing: Heartbeat and expiry of the lease.
        lost: Event that the heartbeat sets when the lease is lost, for example because another run has the lease, or
            because no renewal has succeeded for `expiry_s`.
    """

    def __init__(
        self,
        output: StorePath,
        run_id: str,
        timing: LeaseTiming | None = None,
        on_lost: Callable[[], object] = lambda: None,
    ) -> None:
        """Makes a lease that is not taken yet; sends no request.

        Args:
            output: The output folder.
            run_id: Name of the run.
            timing: Heartbeat and expiry; None takes the defaults.
            on_lost: Called once, on the heartbeat's thread, after `lost` was set.
        """
        self._output, self._run_id, self._on_lost = output, run_id, on_lost
        self._file = output.join(LEASE_FILE)
        self.timing = timing or LeaseTiming()
        # The requests of the heartbeat have shorter limits: a request that hangs must leave time for the next one.
        self._output_asked_once = output.bounded(deadline_s=0.0, timeout_s=self.timing.expiry_s / _MIN_ATTEMPTS)
        self._holder = current_process()
        self._since = datetime.now(UTC)
        self._etag: str | None = None
        self._renewed_s = 0.0
        self._error: LeaseLostError | None = None
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lease-heartbeat", daemon=True)
        self.lost = threading.Event()
        self.fence = Fence(output=output, holding=secrets.token_hex(8))

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Gives the lease back.

        Raises:
            LeaseLostError: The block was interrupted because the lease was lost.
        """
        self._ended.set()
        if self._heart.is_alive():
            self._heart.join(_JOIN_S)
        if self._etag is not None and not self.lost.is_set():
            self._give_back()
        if kind is KeyboardInterrupt:
            self.check()

    def take(self, wait_s: float = 0.0) -> None:
        """Takes the lease and starts the thread that renews it.

        Args:
            wait_s: Seconds to wait until another run ends.

        Raises:
            LeaseHeldError: Another run holds the lease.
            OutputError: The lease object cannot be read or written, or does not hold a lease.
        """
        try:
            self._take(wait_s)
        except StoreError as error:
            raise OutputError(f"the output's lease cannot be taken: {error}") from error
        self._heart.start()

    def check(self) -> None:
        """Raises the error if the lease is lost, else returns; sends no request.

        Raises:
            LeaseLostError: The lease is lost; the message holds the reason.
        """
        if self._error is not None:
            raise self._error

    def _take(self, wait_s: float) -> None:
        started, last_line, races = time.monotonic(), float("-inf"), 0
        first_etag, watched_etag, watched_since = None, None, started
        while True:
            found = find_lease(self._output)
            now = time.monotonic()
            record, etag = found or (None, None)
            first_etag = first_etag or etag
            if etag != watched_etag:
                watched_etag, watched_since = etag, now
            why_free = _why_free(record, now - watched_since)
            if record is None or why_free:
                if self._try_to_take(etag):
                    logger.info("lease.taken uri=%s why=%s before=%s", self._file, why_free, record)
                    return
                races += 1
                if races == _MAX_RACES:
                    raise OutputError(f"{self._file.shown} cannot be written; something else is under its name")
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
        """Replaces the lease with this ETag by a lease of this run; returns False if another run was quicker."""
        self._since = datetime.now(UTC)
        try:
            self._write("held", etag, self._output)
        except (ExistsError, ChangedError, NotFoundError):
            return False
        return True

    def _write(self, state: State, etag: str | None, output: StorePath) -> None:
        """Writes the lease over the version with this ETag; if the ETag is None, creates the object."""
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
        self._etag = output.join(LEASE_FILE).put(record.to_json(), if_absent=etag is None, if_match=etag)
        self._renewed_s = sent_s

    def _rewrite(self, state: State) -> None:
        """Replaces this run's last version of the lease, even if the answer to the write of that version was lost.

        Raises:
            LeaseLostError: Another run holds the lease, or the lease was removed.
            StoreError, OutputError: The write failed.
        """
        try:
            self._write(state, self._etag, self._output_asked_once)
        except (ChangedError, NotFoundError):
            found = find_lease(self._output_asked_once)
            if found is None:
                raise lease_lost(self._output, "was removed") from None
            record, etag = found
            if record.holding != self.fence.holding:
                raise lease_lost(self._output, f"went to {record}, as nothing was heard of this run") from None
            # A heartbeat that was under way when the lease was given back must not take the lease again.
            if record.state == "held":
                self._write(state, etag, self._output_asked_once)

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
            # If this thread ends unexpectedly, nothing renews the lease any more, so the lease is lost.
            if not self._ended.is_set() and not self.lost.is_set():
                self._lose(lease_lost(self._output, "is not renewed any more: its heartbeat ended"))

    def _lose(self, error: LeaseLostError) -> None:
        logger.error("lease.lost error=%s", error)
        self._error = error
        self.lost.set()
        self._on_lost()

    def _give_back(self) -> None:
        """Writes the state "released" into the lease. If the write fails, the lease expires by itself."""
        try:
            self._rewrite("released")
        except (StoreError, PipelineError) as error:
            logger.warning("lease.not_given_back error=%s", error)


def _why_free(record: LeaseRecord | None, unchanged_s: float) -> str | None:
    """Returns the reason why a lease that did not change for `unchanged_s` may be taken; None if there is no reason."""
    if record is None:
        return "new"
    if record.state == "released":
        return "released"
    if record.holder.is_surely_dead():
        return "its process is gone"
    if unchanged_s > _WATCH_FACTOR * record.expires_after_s:
        return f"not renewed while watched for {unchanged_s:.0f} s"
    return None


def _held(output: StorePath, record: LeaseRecord) -> LeaseHeldError:
    runs_out = record.renewed_at + timedelta(seconds=record.expires_after_s)
    return LeaseHeldError(
        f"{output.shown} is being written by {record}, last heard of at {clock_text(record.renewed_at)}; wait for its "
        "end with --wait-for-lease-s SECONDS, or stop it. If it is dead, a run that starts after "
        f"{clock_text(runs_out)} takes over"
    )
