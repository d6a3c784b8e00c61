"""A calibration around a run that is made up: how it is bounded, what comes of its end, and that nothing is left."""

import os
import signal
import time
from types import SimpleNamespace

import pytest

from pipeline.account.progress import Progress
from pipeline.account.totals import Totals
from pipeline.chunks.chunk import CHUNK_MAX_RECORDS
from pipeline.chunks.task import Classify
from pipeline.config.job_config import JobConfig
from pipeline.errors import ConfigError, StoppedError
from pipeline.estimate import calibrate as module
from pipeline.estimate.calibrate import calibrate, rows_per_slice
from pipeline.inputs.config import InputConfig
from pipeline.output.config import OutputConfig
from pipeline.plan.planned_shard import PlannedShard
from pipeline.store.config import StoreConfig
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri, join_uri

pytestmark = pytest.mark.usefixtures("signal_handlers")

STORE = StoreConfig()
SHARD = PlannedShard(
    shard="s3://b/0.tar", name="0", hash16="0", format="tar", action="new", etag="x", size=1000, num_records=None
)


@pytest.fixture
def planned(tmp_path):
    """output -> a run that a dry run has planned for it."""

    def make(output=None):
        output = output or canonical_uri(str(tmp_path / "a" / "out"))
        config = JobConfig(
            task=Classify(), input=InputConfig(uris=("/in",)), output=OutputConfig(uri=output, store=STORE),
            weights="/w", dry_run=True, calibrate=True,
        )  # fmt: skip
        checkpoint = SimpleNamespace(load_s=2.0)
        plan = SimpleNamespace(shards=[SHARD])
        return SimpleNamespace(config=config, run_id="r", checkpoint=checkpoint, identity={}, plan=plan, listing_s=3.0)

    return make


@pytest.fixture
def executed(monkeypatch):
    """Puts a function in the place of the job; returns the runs that it was called with."""
    runs = []

    def install(execute):
        def record(run, ledger, on_progress, stopper):
            runs.append(run)
            StorePath(join_uri(run.config.output.uri, "data", "x.parquet"), run.config.output.store).put(b"rows")
            return execute(on_progress, stopper)

        monkeypatch.setattr(module, "execute", record)
        return runs

    return install


def report(status="done", reason=None, steady=20.0):
    values = {
        "run_id": "r", "status": status, "actors": {"max": 2},
        "rates": {"steady": {"gmac_per_s": 3.0} if steady else None},
        "seconds": {"first_row": 7.0, "steady": steady, "drain": 1.0},
    }  # fmt: skip
    run = SimpleNamespace(listed=5)
    return SimpleNamespace(status=status, reason=reason, problems=(), run=run, to_dict=lambda: values)


def progress(rows, files, first_row_at):
    return Progress(arrived=Totals(listed=rows), published=Totals(files=files), first_row_at=first_row_at)


def test_the_job_is_run_into_a_folder_of_its_own_and_nothing_of_it_stays(planned, executed, tmp_path):
    runs = executed(lambda on_progress, stopper: report())
    (tmp_path / "a").mkdir()
    pace = calibrate(planned(), 64 * 64, 0.1, lambda progress: None)
    assert (pace.fixed_s, pace.gmac_per_s, pace.num_actors) == (8.0, 3.0, 2)
    (run,) = runs
    assert "/a/out/calibration/" in run.config.output.uri
    assert (run.config.dry_run, run.config.calibrate) == (False, False)
    assert [shard.shard for shard in run.plan.shards] == [SHARD.shard]
    # What loading and listing took belongs to the start of the job.
    assert 4.9 < time.time() - run.started_at < 60
    assert list(tmp_path.rglob("*")) == [tmp_path / "a"]


def test_what_was_in_the_output_stays(planned, executed, tmp_path):
    executed(lambda on_progress, stopper: report())
    kept = tmp_path / "a" / "out" / "runs" / "1" / "report.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    calibrate(planned(), 64 * 64, 0.1, lambda progress: None)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [kept]
    assert not (tmp_path / "a" / "out" / "calibration").exists()


def test_nothing_stays_in_an_object_store(planned, executed, s3_root):
    executed(lambda on_progress, stopper: report())
    assert calibrate(planned(f"{s3_root}/out"), 64 * 64, 0.1, lambda progress: None) is not None
    assert list(StorePath(s3_root, STORE).list()) == []


def test_nothing_stays_of_a_job_that_fails(planned, executed, tmp_path):
    def fail(on_progress, stopper):
        raise ConfigError("no cluster there")

    executed(fail)
    with pytest.raises(ConfigError, match="no cluster"):
        calibrate(planned(), 64 * 64, 0.1, lambda progress: None)
    assert list(tmp_path.iterdir()) == []


def test_a_user_who_stops_it_stops_the_job_and_nothing_stays(planned, executed, tmp_path):
    def interrupted(on_progress, stopper):
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        return report("stopped", stopper.ending.reason)

    executed(interrupted)
    with pytest.raises(StoppedError, match=r"SIGINT.*calibration"):
        calibrate(planned(), 64 * 64, 0.1, lambda progress: None)
    assert list(tmp_path.iterdir()) == []


def test_it_ends_itself_after_a_minute_and_that_is_no_error(planned, executed):
    seen = []

    def go_on(on_progress, stopper):
        with pytest.raises(KeyboardInterrupt):
            for _ in range(100):
                on_progress(progress(1000, 50, time.time() - 61))
                time.sleep(0.01)
        return report("stopped", stopper.ending.reason)

    executed(go_on)
    assert calibrate(planned(), 64 * 64, 0.1, seen.append) is not None
    assert [told.published.files for told in seen] == [50]


@pytest.mark.parametrize(
    ("seconds", "files", "is_enough"),
    [(None, 0, False), (59, 100, False), (61, 7, False), (61, 8, True), (179, 7, False), (181, 0, True)],
)
def test_it_goes_on_for_longer_where_few_slices_are_published(seconds, files, is_enough):
    first_row_at = None if seconds is None else 1000.0
    assert module._is_enough(progress(10, files, first_row_at), 2, 1000.0 + (seconds or 0)) is is_enough


def test_a_trial_that_fails_is_said_since_the_run_may_too(planned, executed, caplog):
    executed(lambda on_progress, stopper: report("stalled", "nothing arrived for 1800 s"))
    assert calibrate(planned(), 64 * 64, 0.1, lambda progress: None) is not None
    assert "nothing arrived for 1800 s" in caplog.text


def test_a_sample_without_a_steady_part_gives_no_pace_and_the_log_says_so(planned, executed, caplog):
    executed(lambda on_progress, stopper: report(steady=None))
    assert calibrate(planned(), 64 * 64, 0.1, lambda progress: None) is None
    assert "calibration.no_pace" in caplog.text


def test_a_short_sample_gives_the_pace_that_it_had_and_the_log_says_so(planned, executed, caplog):
    executed(lambda on_progress, stopper: report(steady=0.5))
    assert calibrate(planned(), 64 * 64, 0.1, lambda progress: None).steady_s == 0.5
    assert "calibration.short" in caplog.text


def test_a_slice_is_one_chunk_or_some_where_the_network_is_quick_with_one():
    photo_px = 400 * 533
    assert rows_per_slice(photo_px, 100.0) == 26
    assert rows_per_slice(photo_px, 3.2) == 4 * 26
    assert rows_per_slice(32 * 32, 0.01) == 8 * CHUNK_MAX_RECORDS
    assert rows_per_slice(4 * 2**20, 1e4) == 1
