"""Ends a run early, once: at a signal from outside, or when a thread of the run finds a reason.

    SIGTERM, SIGINT       -> Stopper (the handler)  -> KeyboardInterrupt in the main thread, once
    Stopper.stop(ending)  -> SIGTERM to this process ->     "

The main thread waits deep inside a library when either happens. A signal handler that raises `KeyboardInterrupt`
reaches it there, as Ctrl-C does; libraries catch ordinary exceptions on their way. From then on the stopper is
disarmed: a second signal does not interrupt the finish that follows. SIGKILL still ends the process, and the same
command continues after it.

A command makes one stopper and hands it to everything that may end the command early. Only a calibration makes a second
one, since the end of its trial must not end the command.
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
        reason: a sentence for the report.
        is_bound: the user asked for this end when the run was started, as with `--max-hours`.
        is_pass_only: only the current pass ends; the next one begins after it.
    """

    status: Status
    reason: str
    is_bound: bool = False
    is_pass_only: bool = False


class Stopper:
    """The handler of SIGTERM and SIGINT.

    Attributes:
        ending: why the run ends early; None while nothing has ended it.
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
        """Ends the run from any thread. The first ending counts, but the end of a pass gives way to that of the run."""
        with self._lock:
            if self.ending is not None:
                if self.ending.is_pass_only and not ending.is_pass_only:
                    self.ending = ending  # the main thread is interrupted already, and finds it in `rearm`
                return
            if not self.is_armed:
                return
            self.ending = ending
        # The main thread may be in a system call, which only a real signal interrupts.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def rearm(self) -> None:
        """Lets the main thread be interrupted again after a pass alone was ended.

        Raises:
            KeyboardInterrupt: the run was ended as well, by a signal or by `stop`.
        """
        with self._lock:
            if self.ending is None or not self.ending.is_pass_only:
                raise KeyboardInterrupt
            self.ending, self.is_armed = None, True

    def disarm(self) -> None:
        """From here on neither signals nor `stop` interrupt the main thread."""
        self.is_armed = False

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Arms this stopper until the end of the block, whatever it has ended before."""
        self.ending, self.is_armed = None, True
        try:
            yield
        finally:
            self.disarm()

    def __call__(self, number: int, frame: object) -> None:
        """Called by Python in the main thread when a signal has come."""
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
    """Installs a new stopper until the end of the block; the handlers before it come back after it."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    stopper = Stopper()
    stopper.install()
    try:
        yield stopper
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)
