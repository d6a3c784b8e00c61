"""Watches a pass from the driver: rows, failures and published files, as the collectors tell of them."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from pipeline.prepare import Run
from pipeline.sink import Collectors

_POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """What has arrived at the collectors so far; `total` is None where tars hide how many records they hold."""

    rows: int
    failed: int
    files: int
    total: int | None


class Watch:
    """Polls the collectors on a thread of its own while a pass runs, and once more at its end."""

    def __init__(self, run: Run, collectors: Collectors, on_progress: Callable[[Progress], None]) -> None:
        self._run, self._collectors, self._on_progress = run, collectors, on_progress
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._poll_until_ended, name="watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._poll()

    def _poll_until_ended(self) -> None:
        while not self._ended.wait(_POLL_S):
            self._poll()

    def _poll(self) -> None:
        run = self._run
        states = self._collectors.poll()
        if not states:
            return
        run.counters = [replace(state, receipts=()) for state in states]
        run.receipts += [receipt for state in states for receipt in state.receipts]
        first = [state.first_row_at for state in states if state.first_row_at is not None]
        last = [state.last_row_at for state in states if state.last_row_at is not None]
        run.first_row_at = min([*first, run.first_row_at or float("inf")]) if first else run.first_row_at
        run.last_row_at = max([*last, run.last_row_at or 0.0]) if last else run.last_row_at
        counts = [shard.num_records for shard in run.plan.shards]
        done_before = sum(done.last_row - done.first_row + 1 for shard in run.plan.shards for done in shard.done)
        known = [count for count in counts if count is not None]
        self._on_progress(
            Progress(
                rows=sum(state.rows for state in states),
                failed=sum(state.failed for state in states),
                files=len(run.receipts),
                total=sum(known) - done_before if len(known) == len(counts) else None,
            )
        )
