"""Watches a pass from the driver: asks the collectors for counts and receipts, and reports the progress.

The watch also ends the pass if nothing has arrived for too long, or if one of the given functions finds a reason.
"""

import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from types import TracebackType

from pipeline.account.progress import Progress, share_done
from pipeline.flow.collectors import Collectors
from pipeline.plan.plan import Plan
from pipeline.run.ledger import Ledger
from pipeline.run.stopper import Ending, Stopper

logger = logging.getLogger(__name__)

_POLL_S = 1.0
_POLL_TIMEOUT_S = 10.0
# Seconds to wait for slices that are being published when the pass is interrupted. Publishing a slice takes a fraction
# of this time, and Ray kills a job three seconds after the request to stop.
_FINISH_S = 1.0
# Seconds without progress after which the functions in `stop_if_quiet` are called. Ray restarts an actor in less time.
# Replacing a node mostly takes longer, but meanwhile the actors on other nodes go on.
_QUIET_S = 60.0


class NoProgress:
    """Measures for how long no chunk has arrived at a collector and no file was published."""

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s, self._clock = timeout_s, clock
        self._marker: Hashable = None
        self._changed_at = clock()

    def since(self, marker: Hashable) -> float | None:
        """Returns the seconds for which the marker has not changed; None if the seconds are fewer than the timeout."""
        now = self._clock()
        if marker != self._marker:
            self._marker, self._changed_at = marker, now
        quiet_s = now - self._changed_at
        return quiet_s if quiet_s >= self._timeout_s else None


class Watch:
    """Polls the collectors in a separate thread while a pass runs, and once more at the end of the pass."""

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        collectors: Collectors,
        on_progress: Callable[[Progress], None],
        stopper: Stopper,
        no_progress_timeout_s: float,
        stop_if: Sequence[Callable[[], Ending | None]] = (),
        stop_if_quiet: Sequence[Callable[[], Ending | None]] = (),
    ) -> None:
        """Makes a watch; polling begins when the `with` block is entered.

        Args:
            plan: plan of the run; its totals are needed for the progress.
            ledger: findings of the run; the watch adds the collectors' states.
            on_progress: function that is called with the progress about once a second.
            stopper: handler that ends the pass.
            no_progress_timeout_s: seconds without progress after which the run is ended.
            stop_if: functions that are called about once a second; the ending that a function returns ends the pass.
            stop_if_quiet: functions like those in `stop_if`, but called only while nothing has arrived for a minute, or
                for half of `no_progress_timeout_s` if that is shorter.
        """
        self._plan, self._ledger, self._collectors, self._on_progress = plan, ledger, collectors, on_progress
        self._stopper, self._stop_if, self._stop_if_quiet = stopper, stop_if, stop_if_quiet
        self._no_progress = NoProgress(no_progress_timeout_s)
        self._quiet = NoProgress(min(_QUIET_S, no_progress_timeout_s / 2))
        self._ended = threading.Event()
        self._polling = threading.Lock()
        self._thread = threading.Thread(target=self._poll_until_ended, name="watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if kind is None:
            self._thread.join()
        else:
            self._collectors.finish(_FINISH_S)
        if self._polling.acquire(timeout=_FINISH_S):
            self._poll(_FINISH_S if kind else _POLL_TIMEOUT_S)

    def _poll_until_ended(self) -> None:
        while not self._ended.wait(_POLL_S):
            with self._polling:
                self._poll(_POLL_TIMEOUT_S)
            ending = self._why_end()
            if ending is not None and not self._ended.is_set():
                if ending.is_pass_only:
                    logger.warning("pass.given_up reason=%s; what it had not published is begun again", ending.reason)
                else:
                    level = logging.INFO if ending.is_bound else logging.ERROR
                    logger.log(level, "pass.ended status=%s reason=%s", ending.status, ending.reason)
                self._stopper.stop(ending)
                return

    def _why_end(self) -> Ending | None:
        for check in self._stop_if:
            if ending := check():
                return ending
        if self._ledger.fatal is not None:
            return Ending("failed", self._ledger.fatal)
        marker = self._ledger.progress_mark
        if self._quiet.since(marker) is not None:
            for check in self._stop_if_quiet:
                if ending := check():
                    return ending
        quiet_s = self._no_progress.since(marker)
        if quiet_s is None:
            return None
        where = self._collectors.describe_activity()
        return Ending("stalled", f"nothing arrived and no file was published for {quiet_s:.0f} s: {where}")

    def _poll(self, timeout_s: float) -> None:
        plan, ledger = self._plan, self._ledger
        ledger.take_states(self._collectors.poll(timeout_s))
        self._on_progress(
            Progress(
                arrived=ledger.arrived,
                published=ledger.totals,
                replayed_chunks=ledger.num_replayed_chunks,
                total=None if plan.num_uncounted else plan.num_images,
                share=share_done(ledger.arrived, plan.num_bytes, ledger.planned_macs),
                first_row_at=ledger.first_row_at,
            )
        )
