"""The choice of the earlier run whose pace an estimate takes, among reports as runs leave them."""

import json
from types import SimpleNamespace

import pytest

from pipeline.estimate.pace import last_pace
from pipeline.output.config import OutputConfig
from pipeline.store.config import StoreConfig
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri

STORE = StoreConfig()
# As it is in a run, and as JSON gives it back.
IDENTITY = {"model": {"depths": (2, 2)}, "precision": "fp32", "labels": ["a", "b"]}
REPORTED = {"model": {"depths": [2, 2]}, "precision": "fp32"}


@pytest.fixture
def output(tmp_path):
    return canonical_uri(str(tmp_path))


@pytest.fixture
def report(output):
    """(run ID, length of its steady part, changes) -> its report is there."""

    def write(run_id, steady_s=20.0, **changes):
        values = {
            "run_id": run_id, "status": "done", "identity": REPORTED, "actors": {"max": 4},
            "rates": {"steady": {"gmac_per_s": 3.0}},
            "seconds": {"first_row": 7.0, "steady": steady_s, "drain": 1.0}, **changes,
        }  # fmt: skip
        StorePath(output, STORE).join("runs", run_id, "report.json").put(json.dumps(values).encode())

    return write


@pytest.fixture
def taken(output):
    """Which run's pace is taken for another one over the same output."""

    def find():
        config = SimpleNamespace(output=OutputConfig(uri=output))
        return last_pace(SimpleNamespace(config=config, identity=IDENTITY))

    return find


def test_before_a_first_run_there_is_none(taken):
    assert taken() is None


def test_the_last_run_that_says_how_fast_it_was_is_taken(report, taken, output):
    report("1")
    report("2")
    report("3", rates={"steady": None})
    report("4", rates={})
    StorePath(output, STORE).join("runs", "5", "report.json").put(b"no JSON")
    pace = taken()
    assert (pace.run_id, pace.fixed_s, pace.steady_s, pace.gmac_per_s, pace.num_actors) == ("2", 8.0, 20.0, 3.0, 4)
    assert pace.seconds(gmac=30.0) == 18.0


def test_the_end_of_a_run_that_was_ended_early_is_not_that_of_one_that_came_to_its_end(report, taken):
    report("1", status="stopped")
    assert taken().fixed_s == 7.0


def test_runs_with_other_weights_or_precision_are_passed_over(report, taken):
    report("1")
    report("2", identity={**REPORTED, "precision": "bf16"})
    report("3", identity={**REPORTED, "model": {"depths": [3, 4]}})
    assert taken().run_id == "1"


def test_a_small_night_does_not_stand_for_a_large_one(report, taken):
    report("1", steady_s=0.3)
    assert taken().run_id == "1"
    report("2", steady_s=40.0)
    report("3", steady_s=0.5)
    assert taken().run_id == "2"
