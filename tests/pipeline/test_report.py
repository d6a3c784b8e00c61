import json

import pytest

from pipeline.account import Totals
from pipeline.report import Report, Seconds

RUN = Totals(
    listed=120, ok=117, failed=3, failed_by_code={"decode.corrupt": 2, "source.missing": 1}, ignored=4, bytes=5_000,
    pixels=6_000_000, macs=9_000_000_000, files=2, seconds={"read": 1.23456, "infer": 2.0},
)  # fmt: skip
SECONDS = Seconds(wall=30.00049, model_load=0.51234, first_row=10.0004, steady=8.0, steps={"read": 1.23456, "put": 0.1})


def report(**changes):
    values = {
        "run_id": "r1", "status": "done", "identity": {"job": "classify"}, "run": RUN, "output": RUN + RUN,
        "ignored": 7, "problems": (), "seconds": SECONDS, "actors": {"device": "cpu", "min": 1, "max": 2},
        "versions": {"ray": "2.60.0"}, "passes": 1, "replayed_chunks": 0,
    }  # fmt: skip
    return Report(**values | changes)


def test_the_file_holds_the_whole_account():
    assert json.loads(report(problems=("x: missing",), passes=3, replayed_chunks=5).to_json()) == {
        "run_id": "r1",
        "status": "done",
        "reason": None,
        "run": {
            "listed": 120, "ok": 117, "failed": 3, "failed_by_code": {"decode.corrupt": 2, "source.missing": 1},
            "ignored": 11, "bytes": 5000, "pixels": 6_000_000, "macs": 9_000_000_000, "files": 2,
        },
        "output": {
            "listed": 240, "ok": 234, "failed": 6, "failed_by_code": {"decode.corrupt": 4, "source.missing": 2},
            "ignored": 15, "bytes": 10_000, "pixels": 12_000_000, "macs": 18_000_000_000, "files": 4,
        },
        "problems": ["x: missing"],
        "seconds": {
            "wall": 30.0, "model_load": 0.512, "first_row": 10.0, "steady": 8.0, "steps": {"read": 1.235, "put": 0.1},
        },
        "rates": {"images_per_s": 4.0, "mpix_per_s": 0.2, "gmac_per_s": 0.3, "steady_images_per_s": 15.0},
        "actors": {"device": "cpu", "min": 1, "max": 2},
        "passes": 3,
        "replayed_chunks": 5,
        "versions": {"ray": "2.60.0"},
        "identity": {"job": "classify"},
    }  # fmt: skip


def test_a_run_that_published_nothing_has_rates_of_zero():
    nothing = Seconds(wall=0.0, model_load=0.0, first_row=None, steady=None)
    found = report(run=Totals(), output=Totals(), seconds=nothing).to_dict()
    assert set(found["rates"].values()) == {0.0}
    assert (found["seconds"]["first_row"], found["seconds"]["steady"], found["seconds"]["steps"]) == (None, None, {})


@pytest.mark.parametrize("steady", [None, 0.0])
def test_one_row_gives_no_steady_rate(steady):
    seconds = Seconds(wall=2.0, model_load=0.0, first_row=1.0, steady=steady)
    assert report(run=Totals(listed=1, ok=1), seconds=seconds).rates() == {
        "images_per_s": 0.5, "mpix_per_s": 0.0, "gmac_per_s": 0.0, "steady_images_per_s": 0.0,
    }  # fmt: skip
