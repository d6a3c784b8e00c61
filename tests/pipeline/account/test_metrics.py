"""The metrics that the driver reports, without a Ray; `tests/jobs/test_metrics.py` has a real Ray and a Prometheus."""

import threading
from collections import defaultdict

import pytest

from pipeline.account import metrics
from pipeline.account.metrics import RunMetrics
from pipeline.account.progress import Progress
from pipeline.account.totals import Totals
from tests.support.waiting import eventually


@pytest.fixture
def told(monkeypatch):
    """What was told last, by name and labels; of counters the sum."""
    values = defaultdict(float)

    class Metric:
        def __init__(self, name, text, labels):
            self.name, self.labels = name, labels
            assert text.endswith(".")

        def key(self, labels):
            assert tuple(labels) == self.labels
            return (self.name, *labels.values())

        def set(self, value, labels):
            values[self.key(labels)] = value

        def inc(self, value, labels):
            assert value > 0  # others are refused
            values[self.key(labels)] += value

    monkeypatch.setattr(metrics, "_counter", Metric)
    monkeypatch.setattr(metrics, "_gauge", Metric)
    return values


@pytest.fixture(autouse=True)
def closed(monkeypatch):
    """Every run that a test begins is closed after it."""
    begun, begin = [], RunMetrics.__init__

    def note(self, *arguments):
        begin(self, *arguments)
        begun.append(self)

    monkeypatch.setattr(RunMetrics, "__init__", note)
    yield
    for run in begun:
        run.close()


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(metrics.time, "time", lambda: now[0])
    return now


def arrived(ok, failed=0, **values):
    codes = {"decode.corrupt": failed} if failed else {}
    return Totals(listed=ok + failed, ok=ok, failed=failed, failed_by_code=codes, **values)


def test_counters_follow_the_sums_and_keep_their_highest_value(told):
    run = RunMetrics("r", 990.0, 2, {"kind": "classify"})
    sums = [arrived(10, 1, macs=70, seconds={"decode": 1.5}), arrived(25, 2, macs=90, seconds={"decode": 2.0})]
    # The second is that of a collector that came back empty.
    for totals in (sums[0], arrived(4), sums[1], sums[1]):
        run.update(Progress(arrived=totals, published=Totals(listed=8, files=1, seconds={"put": 0.25})))
    assert told["pvtv2_images_total", "r", "ok"] == 25
    assert told["pvtv2_images_total", "r", "failed"] == told["pvtv2_failures_total", "r", "decode.corrupt"] == 2
    assert told["pvtv2_macs_total", "r"] == 90
    assert told["pvtv2_step_seconds_total", "r", "decode"] == 2.0
    assert told["pvtv2_step_seconds_total", "r", "put"] == 0.25
    assert told["pvtv2_published_images_total", "r"] == 8


def test_gauges_say_what_is_known(told, clock):
    run = RunMetrics("r", 990.0, 2, {"kind": "classify", "device": "cpu"})
    assert told["pvtv2_run_info", "r", "classify", "cpu"] == 1
    assert (told["pvtv2_running", "r"], told["pvtv2_infer_actors", "r"]) == (1, 2)
    assert told["pvtv2_start_timestamp_seconds", "r"] == 990.0
    run.update(Progress())
    assert ("pvtv2_planned_images", "r") not in told
    assert ("pvtv2_work_done_ratio", "r") not in told
    run.update(Progress(total=80, share=0.5))
    assert (told["pvtv2_planned_images", "r"], told["pvtv2_work_done_ratio", "r"]) == (80, 0.5)
    run.close()
    assert told["pvtv2_running", "r"] == 0


def test_a_run_that_closes_for_long_is_still_there_and_then_it_is_not(told, monkeypatch):
    """Nothing arrives any more by then; its gauges went, and it was reported as gone."""
    monkeypatch.setattr(metrics, "_REPORT_EVERY_S", 0.01)
    run = RunMetrics("r", 990.0, 1, {})
    told.clear()
    eventually(lambda: told["pvtv2_running", "r"] == 1)
    run.close()
    assert told["pvtv2_running", "r"] == 0
    assert "metrics" not in {thread.name for thread in threading.enumerate()}


def test_progress_is_a_chunk_that_arrives_or_a_file_that_is_published(told, clock):
    run = RunMetrics("r", 990.0, 1, {})
    moments = []
    for progress in (
        Progress(arrived=arrived(1)),
        Progress(arrived=arrived(1), share=0.5),  # nothing new
        Progress(arrived=arrived(1), replayed_chunks=1),
        Progress(arrived=arrived(1), replayed_chunks=1, published=Totals(files=1)),
    ):
        clock[0] += 10
        run.update(progress)
        moments.append(told["pvtv2_last_progress_timestamp_seconds", "r"])
    assert moments == [1010.0, 1010.0, 1030.0, 1040.0]
