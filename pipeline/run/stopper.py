"""Ends a run early: at a signal from outside, or when a thread of the run finds a reason.

    SIGTERM or SIGINT from outside                   ->  Stopper (the handler)  ->  KeyboardInterrupt in the main thread
    Stopper.stop(ending) -> SIGTERM to this process  ->  Stopper (the handler)  ->  KeyboardInterrupt in the main thread

The main thread mostly waits inside a library when the end is requested. A signal handler can end that wait by raising
`KeyboardInterrupt`, as Ctrl-C does; a library might catch an ordinary exception. The first `KeyboardInterrupt` disarms
the stopper, so a second signal does not interrupt the end of the run. SIGKILL still ends the process; the same command
then continues the work.

A command makes one stopper and hands the stopper to every part that may end the command early. Only a calibration makes
a second stopper, because the end of the trial must not end the command.
"""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.account.report import Status

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a run, or one pass of it, ends before its work is done.

    Attributes:
        status: status of the run in its report.
        reason: sentence for the report that says why the run ends.
        is_bound: True if the user asked for this end at the start of the run, as with `--max-hours`.
        is_pass_only: True if only the current pass ends and the next pass follows.
    """

    status: Status
    reason: str
    is_bound: bool = False
    is_pass_only: bool = False


class Stopper:
    """The handler of SIGTERM and SIGINT.

    Attributes:
        ending: why the run or the pass ends early; None while nothing has ended the run or the pass.
        is_armed: True while signals and `stop` interrupt the main thread.
    """

    def __init__(self) -> None:
        self.ending: Ending | None = None
        self.is_armed = True
        self._lock = threading.Lock()

    def install(self) -> None:
        """Makes this stopper the handler of the signals; does nothing outside the main thread."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self)

    def stop(self, ending: Ending) -> None:
        """Ends the run, or only the current pass, from any thread.

        The first ending is kept, with one exception: the ending of the run replaces the ending of a pass.
        """
        with self._lock:
            if self.ending is not None:
                if self.ending.is_pass_only and not ending.is_pass_only:
                    self.ending = ending  # the main thread is interrupted already, and `rearm` finds the ending
                return
            if not self.is_armed:
                return
            self.ending = ending
        # The main thread may be in a system call, which only a real signal interrupts.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def rearm(self) -> None:
        """Arms the stopper again after only a pass was ended.

        Raises:
            KeyboardInterrupt: the run was ended as well, by a signal or by `stop`.
        """
        with self._lock:
            if self.ending is None or not self.ending.is_pass_only:
                raise KeyboardInterrupt
            self.ending, self.is_armed = None, True

    def disarm(self) -> None:
        """Disarms the stopper: neither signals nor `stop` interrupt the main thread any more."""
        self.is_armed = False

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Forgets an earlier ending, and arms this stopper until the end of the block."""
        self.ending, self.is_armed = None, True
        try:
            yield
        finally:
            self.disarm()

    def __call__(self, number: int, frame: object) -> None:
        """Handles a signal; Python calls this method in the main thread."""
        name = signal.Signals(number).name
        told_to_stop = Ending("stopped", f"the run was told to stop ({name})")
        if self.is_armed:
            self.is_armed = False
            self.ending = self.ending or told_to_stop
            raise KeyboardInterrupt
        if self.ending is not None and self.ending.is_pass_only:
            self.ending = told_to_stop
        else:
            logger.warning("run.closing signal=%s: the run is about to end, and is not interrupted", name)


@contextmanager
def own_stopper() -> Iterator[Stopper]:
    """Installs a new stopper until the end of the block, then restores the earlier signal handlers."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    stopper = Stopper()
    stopper.install()
    try:
        yield stopper
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)
