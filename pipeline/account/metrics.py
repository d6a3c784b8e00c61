"""Metrics of a run in progress, for Prometheus. Ray exports the metrics at an address of every node.

Ray puts `ray_` before each name and adds labels of its own. The driver reports all metrics, once a second, from the
counts of the collectors; each metric carries the label `run_id`. Gauges are reported also while nothing arrives, from
the start of the passes until the run leaves Ray. Counters never go down: if a collector is lost together with its rows,
the rows are computed again, and are still counted once.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from functools import cache

from ray.util.metrics import Counter, Gauge

from pipeline.account.progress import Progress
from pipeline.account.totals import Totals
from pipeline.chunks.measures import SECONDS

_RUN = "run_id"
_COUNTERS: Mapping[str, tuple[str, str | None]] = {
    "pvtv2_images_total": ("Images that came to the collectors, with their rows.", "status"),
    "pvtv2_failures_total": ("Failed images among them, by error code.", "code"),
    "pvtv2_pixels_total": ("Pixels that the network saw.", None),
    "pvtv2_macs_total": ("Multiply-accumulates of the network.", None),
    "pvtv2_step_seconds_total": ("Busy or waiting seconds of a step, summed over processes.", "step"),
    "pvtv2_read_bytes_total": ("Bytes that the inputs' store sent.", None),
    "pvtv2_store_requests_total": ("Requests of the readers to the inputs' store.", None),
    "pvtv2_store_retries_total": ("Requests among them that repeated one that had failed.", None),
    "pvtv2_replayed_chunks_total": ("Chunks that came a second time, and were dropped.", None),
    "pvtv2_published_images_total": ("Rows in files of this run.", None),
    "pvtv2_published_files_total": ("Files of this run.", None),
    "pvtv2_published_bytes_total": ("Bytes of these files.", None),
}
"""Description of each counter by name, and the label that divides the counter; None for a counter without a label."""

_GAUGES: Mapping[str, str] = {
    "pvtv2_running": "1 while the run goes on, 0 when it has ended.",
    "pvtv2_work_done_ratio": "Which part of the run's work is done, by multiply-accumulates.",
    "pvtv2_planned_images": "Records to do; not there where tars hide how many they hold.",
    "pvtv2_infer_actors": "Infer actors, at most.",
    "pvtv2_start_timestamp_seconds": "When the program was started.",
    "pvtv2_last_progress_timestamp_seconds": "When a chunk arrived or a file was published last.",
}
_INFO = "pvtv2_run_info"
NAMES = (*_COUNTERS, *_GAUGES, _INFO)
"""Names of all metrics, without Ray's prefix `ray_`."""

_REPORT_EVERY_S = 5.0
# Steps of the collectors. No chunk carries their seconds, which are known when a file is published.
_COLLECTORS_STEPS = ("serialise", "put")


class RunMetrics:
    """Reports the metrics of one run; the process must have joined Ray before this object is made."""

    def __init__(self, run_id: str, started_at: float, num_actors: int, info: Mapping[str, str]) -> None:
        """Reports the gauges that are known from the start, and goes on reporting gauges until `close`.

        Args:
            started_at: `time.time()` at the start of the program.
            num_actors: Largest number of infer actors that the run may have.
            info: Labels of `pvtv2_run_info`.
        """
        self._run, self._info = {_RUN: run_id}, dict(info)
        self._reported: dict[tuple[str, str], float] = {}
        self._marker: tuple[int, ...] = ()
        self._gauges: dict[str, float] = {
            "pvtv2_running": 1,
            "pvtv2_infer_actors": num_actors,
            "pvtv2_start_timestamp_seconds": started_at,
            "pvtv2_last_progress_timestamp_seconds": time.time(),
        }
        self._report_gauges()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._report_until_closed, name="metrics", daemon=True)
        self._thread.start()

    def update(self, progress: Progress) -> None:
        """Reports the progress of the run."""
        for name, value, label in _counted(progress):
            self._count(name, value, label)
        if progress.share is not None:
            self._gauges["pvtv2_work_done_ratio"] = progress.share
        if progress.total is not None:
            self._gauges["pvtv2_planned_images"] = progress.total
        marker = (progress.arrived.listed, progress.replayed_chunks, progress.published.files)
        if marker != self._marker:
            self._marker = marker
            self._gauges["pvtv2_last_progress_timestamp_seconds"] = time.time()
        self._report_gauges()

    def close(self) -> None:
        """Reports that the run has ended; alerts are silent from then on."""
        self._closed.set()
        self._thread.join()
        self._gauges["pvtv2_running"] = 0
        self._report_gauges()

    def _report_until_closed(self) -> None:
        # Ray drops a gauge that was not reported since its last export. Checking 100,000 files at the end takes time.
        while not self._closed.wait(_REPORT_EVERY_S):
            self._report_gauges()

    def _report_gauges(self) -> None:
        for name, value in list(self._gauges.items()):
            _gauge(name, _GAUGES[name], (_RUN,)).set(value, self._run)
        _gauge(_INFO, "1; its labels say what the run does.", (_RUN, *self._info)).set(1, {**self._run, **self._info})

    def _count(self, name: str, value: float, label: str) -> None:
        more = value - self._reported.get((name, label), 0.0)
        if more > 0:
            text, of_label = _COUNTERS[name]
            labels = {**self._run, of_label: label} if of_label else self._run
            _counter(name, text, tuple(labels)).inc(more, labels)
            self._reported[name, label] = value


# The caches keep the objects to the end of the process: Ray would lose the last values of an object that is deleted.
_counter, _gauge = cache(Counter), cache(Gauge)


def _counted(progress: Progress) -> Iterator[tuple[str, float, str]]:
    """Yields the name and value of each counter, and the value of the counter's label."""
    arrived, published = progress.arrived, progress.published
    yield "pvtv2_images_total", arrived.ok, "ok"
    yield "pvtv2_images_total", arrived.failed, "failed"
    for code, images in arrived.failed_by_code.items():
        yield "pvtv2_failures_total", images, code
    yield "pvtv2_pixels_total", arrived.pixels, ""
    yield "pvtv2_macs_total", arrived.macs, ""
    for step, seconds in _seconds(arrived, published):
        yield "pvtv2_step_seconds_total", seconds, step
    yield "pvtv2_read_bytes_total", arrived.counts.get("bytes_in", 0), ""
    yield "pvtv2_store_requests_total", arrived.counts.get("requests", 0), ""
    yield "pvtv2_store_retries_total", arrived.counts.get("retries", 0), ""
    yield "pvtv2_replayed_chunks_total", progress.replayed_chunks, ""
    yield "pvtv2_published_images_total", published.listed, ""
    yield "pvtv2_published_files_total", published.files, ""
    yield "pvtv2_published_bytes_total", published.counts.get("bytes_out", 0), ""


def _seconds(arrived: Totals, published: Totals) -> Iterator[tuple[str, float]]:
    for step in SECONDS:
        yield step, arrived.seconds.get(step, 0.0)
    for step in _COLLECTORS_STEPS:
        yield step, published.seconds.get(step, 0.0)
