"""The progress of a run, shown on a terminal or in the log."""

import logging
import sys
import time

from pipeline.account.progress import Progress

logger = logging.getLogger(__name__)

_LINE_EVERY_S = 10.0
_ESTIMATE_FROM_SHARE = 0.02  # share of the work from which on the remaining time is estimated


class ProgressDisplay:
    """A progress bar on a terminal, one log line every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._last_line = self._started
        self._is_terminal = sys.stderr.isatty()

    def __call__(self, progress: Progress) -> None:
        """Shows the progress of the run."""
        now = time.monotonic()
        arrived, files = progress.arrived, progress.published.files
        rate = arrived.listed / max(now - self._started, 1e-9)
        share = f"/{progress.total}" if progress.total is not None else ""
        text = f"{arrived.listed}{share} images, {arrived.failed} failed, {files} files, {rate:.1f} images/s"
        text += _work_left(progress)
        if self._is_terminal:
            width = 24
            part = progress.share if progress.share is not None else progress.total and arrived.listed / progress.total
            done = 0 if not part else min(width, int(width * part))
            bar = "." * width if part is None else "#" * done + "-" * (width - done)
            print(f"\r[{bar}] {text}\x1b[K", end="", file=sys.stderr, flush=True)
        elif now - self._last_line >= _LINE_EVERY_S:
            self._last_line = now
            logger.info("progress %s", text)

    def close(self) -> None:
        """Ends the line of the bar."""
        if self._is_terminal:
            print(file=sys.stderr, flush=True)


def _work_left(progress: Progress) -> str:
    """Returns, as text, the share of the work that is done and the remaining time at the pace since the first row."""
    share = progress.share
    if not share or progress.first_row_at is None:
        return ""
    spent_s = time.time() - progress.first_row_at
    left = f", {_duration(spent_s * (1 - share) / share)} left" if share >= _ESTIMATE_FROM_SHARE and share < 1 else ""
    return f", {share:.0%} of the work done{left}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
