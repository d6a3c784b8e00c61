"""Where a run stands, for whoever watches it."""

import logging
import sys
import time

from pipeline.watch import Progress

logger = logging.getLogger(__name__)

_LINE_EVERY_S = 10.0


class ProgressDisplay:
    """A progress bar on a terminal, one log line every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._last_line = self._started
        self._is_terminal = sys.stderr.isatty()

    def __call__(self, progress: Progress) -> None:
        """Shows where the run stands."""
        now = time.monotonic()
        rate = progress.rows / max(now - self._started, 1e-9)
        share = f"/{progress.total}" if progress.total is not None else ""
        text = f"{progress.rows}{share} images, {progress.failed} failed, {progress.files} files, {rate:.1f} images/s"
        if self._is_terminal:
            width = 24
            done = 0 if not progress.total else min(width, width * progress.rows // progress.total)
            bar = "#" * done + "-" * (width - done) if progress.total else "." * width
            print(f"\r[{bar}] {text}\x1b[K", end="", file=sys.stderr, flush=True)
        elif now - self._last_line >= _LINE_EVERY_S:
            self._last_line = now
            logger.info("progress %s", text)

    def close(self) -> None:
        """Leaves the bar's line."""
        if self._is_terminal:
            print(file=sys.stderr, flush=True)
