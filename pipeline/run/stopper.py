"""How a run is ended early, once: by a signal from outside, or by a thread of its own that finds a reason.

The main thread waits deep inside a library when either happens. So both come to it as a signal, whose handler raises
`KeyboardInterrupt` there, as Ctrl-C does: libraries catch an ordinary exception on its way. It is raised once. What
follows, the close, is not interrupted by a second signal; SIGKILL remains, and the same command continues after it.
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
    """Why a run ends before its work is done: what the report says, and a sentence.

    `is_bound` tells an end that the run was asked for when it was started from one that nobody foresaw; `is_again` an
    end of the pass alone, after which the next begins.
    """

    status: Status
    reason: str
    is_bound: bool = False
    is_again: bool = False


class Stopper:
    """The handler of SIGTERM and SIGINT.

    Attributes:
        ending: why the run was ended; None while nobody has asked for it.
        is_closed: nothing interrupts the main thread any more.
    """

    def __init__(self) -> None:
        self.ending: Ending | None = None
        self._lock = threading.Lock()
        self.is_closed = False

    def install(self) -> None:
        """Makes this the handler; does nothing outside the main thread, where Python allows none."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self)

    def stop(self, ending: Ending) -> None:
        """Ends the run from any thread; if it has been ended before, that reason remains."""
        with self._lock:
            if self.is_closed or self.ending is not None:
                return
            self.ending = ending
        # The main thread may be in a system call, which only a real signal interrupts.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def reopen(self) -> None:
        """After an end of the pass alone: from here on the main thread may be interrupted again.

        Raises:
            KeyboardInterrupt: a signal came meanwhile, or the run was ended for another reason.
        """
        with self._lock:
            if self.ending is None or not self.ending.is_again:
                raise KeyboardInterrupt
            self.ending, self.is_closed = None, False

    def close(self) -> None:
        """From here on neither signals nor `stop` interrupt the main thread."""
        self.is_closed = True

    def __call__(self, number: int, frame: object) -> None:
        """Called by Python in the main thread when a signal has come."""
        name = signal.Signals(number).name
        if self.is_closed and self.ending is not None and self.ending.is_again:
            self.ending = Ending("stopped", f"the run was told to stop ({name})")
            return
        if self.is_closed:
            logger.warning("run.closing signal=%s: what is left takes a moment, and is not interrupted", name)
            return
        self.is_closed = True
        self.ending = self.ending or Ending("stopped", f"the run was told to stop ({name})")
        raise KeyboardInterrupt


@contextmanager
def installed_stopper() -> Iterator[Stopper]:
    """The stopper that handles this process' signals, or one that does so until the end of the block."""
    found = signal.getsignal(signal.SIGTERM)
    if isinstance(found, Stopper) and not found.is_closed:
        yield found
        return
    with own_stopper() as stopper:
        yield stopper


@contextmanager
def own_stopper() -> Iterator[Stopper]:
    """A stopper that handles this process' signals until the end of the block, whoever does before and after it."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    stopper = Stopper()
    stopper.install()
    try:
        yield stopper
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)
