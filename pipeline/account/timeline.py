"""The timeline of a run: the work of each step and process in a bounded number of buckets of time.

A piece of work is spread evenly over the time that it took. If a run lasts longer than the buckets reach, the buckets
become twice as wide.
"""

import io
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.chunks.measures import Span, machine_of, process_name

NUM_BUCKETS = 512
FIRST_WIDTH_S = 0.25
MOST_PROCESSES = 512
_WORK = ("busy_s", "images", "pixels", "macs")

SCHEMA = pa.schema(
    [
        pa.field("begins_at", pa.timestamp("ms", tz="UTC")),
        pa.field("width_s", pa.float64()),
        pa.field("step", pa.string()),
        pa.field("process", pa.string()),
        *(pa.field(name, pa.float64()) for name in _WORK),
    ]
)


class Timeline:
    """The work in each bucket of time, by step and process."""

    def __init__(self, started_at: float) -> None:
        """Makes an empty timeline.

        Args:
            started_at: `time.time()` at the beginning of the first bucket.
        """
        self.started_at, self.width_s = started_at, FIRST_WIDTH_S
        self._work: dict[tuple[str, float], np.ndarray] = {}

    def add(self, span: Span, images: int, pixels: int, macs: int) -> None:
        """Adds a piece of work of one process; work before the start of the run counts for the first bucket."""
        end = max(0.0, span.ended - self.started_at)
        begin = max(0.0, end - span.seconds)
        while end >= NUM_BUCKETS * self.width_s:
            self._widen()
        table = self._work.setdefault(self._key(span), np.zeros((NUM_BUCKETS, len(_WORK))))
        first, last = int(begin / self.width_s), int(end / self.width_s)
        edges = np.arange(first, last + 2) * self.width_s
        covered = np.minimum(end, edges[1:]) - np.maximum(begin, edges[:-1])
        total = covered.sum()
        shares = covered / total if total > 0 else np.eye(1, len(covered))[0]
        table[first : last + 1] += np.outer(shares, (span.seconds, images, pixels, macs))

    def between(self, step: str, share: float, to_share: float) -> tuple[float, float] | None:
        """Returns the times at which `share` and `to_share` of a step's work were done; None if the step did no work.

        Both times are in seconds from the start. Work is counted in multiply-accumulates, or in images if the step has
        no multiply-accumulates.
        """
        tables = [table for (of_step, _), table in self._work.items() if of_step == step]
        if not tables:
            return None
        work = np.sum(tables, axis=0)
        done = work[:, 3] if work[:, 3].sum() > 0 else work[:, 1]
        if done.sum() <= 0:
            return None
        edges = np.arange(NUM_BUCKETS + 1) * self.width_s
        reached = np.concatenate([[0.0], np.cumsum(done) / done.sum()])
        begin, end = (float(np.interp(part, reached, edges)) for part in (share, to_share))
        return begin, end

    def within(self, step: str, begin: float, end: float) -> dict[str, float]:
        """Returns `busy_s`, `images`, `pixels` and `macs` of a step between two times, in seconds from the start."""
        edges = np.arange(NUM_BUCKETS + 1) * self.width_s
        covered = np.clip(np.minimum(end, edges[1:]) - np.maximum(begin, edges[:-1]), 0, None) / self.width_s
        tables = [table for (of_step, _), table in self._work.items() if of_step == step]
        sums = sum(((table * covered[:, None]).sum(axis=0) for table in tables), np.zeros(len(_WORK)))
        return dict(zip(_WORK, sums.tolist(), strict=True))

    def ends(self, step: str) -> tuple[float, float] | None:
        """Returns when a step's first work began and its last work ended; None if the step did no work.

        Both times are in seconds from the start, rounded outwards to whole buckets.
        """
        at = [np.flatnonzero(table[:, 0]) for (of_step, _), table in self._work.items() if of_step == step]
        places = np.concatenate(at) if at else np.array([])
        return None if not len(places) else (places.min() * self.width_s, (places.max() + 1) * self.width_s)

    def rows(self) -> Iterator[dict]:
        """Yields the timeline as rows of `SCHEMA`, in the order of time."""
        for index in range(NUM_BUCKETS):
            at = datetime.fromtimestamp(self.started_at + index * self.width_s, UTC)
            for (step, process), table in sorted(self._work.items()):
                if table[index].any():
                    work = dict(zip(_WORK, table[index].tolist(), strict=True))
                    yield {
                        "begins_at": at,
                        "width_s": self.width_s,
                        "step": step,
                        "process": process_name(process),
                        **work,
                    }

    def processes(self) -> dict[tuple[str, str], tuple[float, float]]:
        """Returns (busy seconds, number of images) for each (step, name of a process)."""
        return {
            (step, process_name(process)): (float(table[:, 0].sum()), float(table[:, 1].sum()))
            for (step, process), table in sorted(self._work.items())
        }

    def to_parquet(self) -> bytes:
        """Returns all rows as the bytes of a Parquet file."""
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(list(self.rows()), schema=SCHEMA), buffer, compression="zstd")
        return buffer.getvalue()

    def _key(self, span: Span) -> tuple[str, float]:
        """Returns (step, process) of a span; (step, machine) if the timeline has too many processes already."""
        key = span.step, span.process
        is_kept = key in self._work or len(self._work) < MOST_PROCESSES
        return key if is_kept else (span.step, machine_of(span.process))

    def _widen(self) -> None:
        self.width_s *= 2
        for key, table in self._work.items():
            halved = table.reshape(NUM_BUCKETS // 2, 2, -1).sum(axis=1)
            self._work[key] = np.concatenate([halved, np.zeros_like(halved)])
