import json
from datetime import UTC, datetime

from pipeline.account.breakdown import SCORE_BINS, SIZE_BANDS_PX, Band, Breakdown
from pipeline.account.ray_operators import Operator, Operators
from pipeline.account.report import Report, Seconds
from pipeline.account.totals import Totals
from pipeline.account.verdict import Verdict
from pipeline.account.work import Work
from pipeline.chunks.sample import Sample

RUN = Totals(
    listed=120, ok=117, failed=3, failed_by_code={"decode.corrupt": 2, "source.missing": 1}, ignored=4, bytes=5_000,
    pixels=6_000_000, macs=9_000_000_000, files=2, seconds={"read": 1.23456, "compute": 2.0},
    counts={"requests": 130, "retries": 10, "tokens": 600, "packs": 3, "pack_room": 800, "chunks": 2, "bytes_out": 900},
)  # fmt: skip
STARTED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
STEADY = Work(seconds=8.0, images=100.0, pixels=4e6, macs=8e9)
BREAKDOWN = Breakdown(
    bands=[Band(images=117, pixels=6_000_000, macs=9_000_000_000, compute_s=2.0), *[Band()] * (len(SIZE_BANDS_PX) - 1)],
    labels={"cat": 2, "dog": 114, None: 1},
    scores=[117, *[0] * (SCORE_BINS - 1)],
    examples={"decode.corrupt": [("i1", "broken"), ("i2", None)]},
    shards={"a.tar": (1.0, 60), "b.tar": (2.0, 60)},
    peak_gflops=100.0,
)
VERDICT = Verdict(bound_by="network", fullness={"compute": 0.9}, sentence="network-bound", advice=("more",))
SECONDS = Seconds(wall=30.00049, model_load=0.51234, first_row=10.0004, steady=8.0, steps={"read": 1.23456, "put": 0.1})


def report(**changes):
    values = {
        "run_id": "r1", "status": "done", "identity": {"job": "classify"}, "run": RUN, "output": RUN + RUN,
        "ignored": 7, "problems": (), "seconds": SECONDS, "started_at": STARTED_AT, "steady": STEADY, "num_actors": 2,
        "price_per_hour": 3.0, "breakdown": BREAKDOWN, "verdict": VERDICT,
        "processes": [{"process": "a/1", "step": "compute", "images": 120, "busy_s": 4.0, "busy_share": 0.5}],
        "actors": {"device": "cpu", "min": 1, "max": 2},
        "versions": {"ray": "2.60.0"}, "passes": 1, "replayed_chunks": 0,
    }  # fmt: skip
    return Report(**values | changes)


def test_the_file_holds_the_whole_account():
    reading = Operator(name="read", tasks=4, failed_tasks=1, scheduling_s=0.1234, held_back_s=2.0)
    operators = Operators(operators=(reading,), spilled_bytes=5)
    changes = {"passes": 3, "replayed_chunks": 5, "operators": operators, "left_out": {"older_objects": 7}}
    found = report(problems=("x: missing",), **changes)
    assert json.loads(found.to_json()) == {
        "run_id": "r1",
        "started_at": "2026-01-02T03:04:05+00:00",
        "status": "done",
        "reason": None,
        "run": {
            "listed": 120, "ok": 117, "failed": 3, "failed_by_code": {"decode.corrupt": 2, "source.missing": 1},
            "failed_by_bug": {}, "ignored": 11, "passed_over": {},
            "bytes": 5000, "pixels": 6_000_000, "macs": 9_000_000_000, "files": 2,
        },
        "output": {
            "listed": 240, "ok": 234, "failed": 6, "failed_by_code": {"decode.corrupt": 4, "source.missing": 2},
            "failed_by_bug": {}, "ignored": 15, "passed_over": {},
            "bytes": 10_000, "pixels": 12_000_000, "macs": 18_000_000_000,
            "files": 4,
        },
        "left_out": {"older_objects": 7},
        "size_check": None,
        "problems": ["x: missing"],
        "seconds": {
            "wall": 30.0, "model_load": 0.512, "listing": 0.0, "first_row": 10.0, "steady": 8.0, "drain": None,
            "steps": {"read": 1.235, "put": 0.1},
        },
        "rates": {
            "images_per_s": 4.0, "mpix_per_s": 0.2, "gmac_per_s": 0.3, "steady_images_per_s": 12.5,
            "steady": {"images_per_s": 12.5, "mpix_per_s": 0.5, "gmac_per_s": 1.0},
            "model": {"images_per_s": 120.0, "mpix_per_s": 6.0, "gmac_per_s": 9.0},
        },
        "work": {
            "requests": 130, "retries": 10, "tokens": 600, "packs": 3, "chunks": 2, "bytes_out": 900, "pack_fill": 0.75,
            "replayed_chunks": 5,
        },
        "efficiency": {"peak_gflops": 100.0, "mfu": 0.09},
        "cost": {"actor_hours": 0.0167, "gpu_hours": 0.0, "price_per_hour": 3.0, "per_million_images": 416.6735},
        "verdict": {
            "bound_by": "network", "fullness": {"compute": 0.9}, "sentence": "network-bound", "advice": ["more"],
        },
        "sizes": [
            {"from_px": 0, "to_px": 64, "images": 117, "pixels": 6_000_000, "macs": 9_000_000_000, "compute_s": 2.0},
            *(
                {"from_px": low, "to_px": high, "images": 0, "pixels": 0, "macs": 0, "compute_s": 0.0}
                for low, high in zip(SIZE_BANDS_PX[1:], [*SIZE_BANDS_PX[2:], None], strict=True)
            ),
        ],
        "failures": [
            {
                "code": "decode.corrupt", "images": 2,
                "examples": [
                    {"image_id": "i1", "error_message": "broken"}, {"image_id": "i2", "error_message": None},
                ],
            },
            {"code": "source.missing", "images": 1, "examples": []},
        ],
        "shards": [
            {"shard": "b.tar", "images": 60, "seconds": 2.0}, {"shard": "a.tar", "images": 60, "seconds": 1.0},
        ],
        "labels": [{"label": "dog", "images": 114}, {"label": "cat", "images": 2}, {"label": None, "images": 1}],
        "scores": {"edges": [round(i / 20, 4) for i in range(21)], "images": [117, *[0] * 19]},
        "processes": [{"process": "a/1", "step": "compute", "images": 120, "busy_s": 4.0, "busy_share": 0.5}],
        "ray": {
            "operators": [
                {
                    "name": "read",
                    "tasks": 4,
                    "failed_tasks": 1,
                    "scheduling_s": 0.123,
                    "held_back_s": 2.0,
                    "output_held_back_s": 0.0,
                }
            ],
            "spilled_bytes": 5,
            "restored_bytes": 0,
        },
        "actors": {"device": "cpu", "min": 1, "max": 2},
        "passes": 3,
        "replayed_chunks": 5,
        "versions": {"ray": "2.60.0"},
        "identity": {"job": "classify"},
    }  # fmt: skip


def test_a_run_that_published_nothing_has_rates_of_zero():
    nothing = Seconds(wall=0.0, model_load=0.0, first_row=None, steady=None)
    found = report(run=Totals(), output=Totals(), seconds=nothing, steady=None, num_actors=0).to_dict()
    assert {rate for rate in found["rates"].values() if rate is not None} == {0.0}
    assert (found["cost"], found["efficiency"], found["rates"]["model"]) == (None, None, None)
    assert (found["seconds"]["first_row"], found["seconds"]["steady"], found["seconds"]["steps"]) == (None, None, {})


def test_without_a_steady_part_there_is_no_steady_rate():
    assert report(steady=None).rates()["steady_images_per_s"] == 0.0


def test_a_sample_is_there_where_it_is_asked_for():
    assert "samples" not in report().to_dict()
    sample = Sample(image_id="i", shard="s", label="cat", score=0.5, width=4, height=3, jpeg=b"\xff\xd8\xff")
    found = report(breakdown=Breakdown(samples=[sample])).to_json()
    assert json.loads(found)["samples"] == [
        {"image_id": "i", "shard": "s", "label": "cat", "score": 0.5, "width": 4, "height": 3, "thumbnail": "/9j/"}
    ]


def test_nobody_who_names_no_price_is_told_one():
    assert report(price_per_hour=None).to_dict()["cost"]["per_million_images"] is None
    assert report(run=Totals()).to_dict()["cost"]["per_million_images"] is None


def test_hours_of_a_gpu_are_told_apart():
    assert report(actors={"device": "cuda"}).to_dict()["cost"]["gpu_hours"] == 0.0167


def test_labels_beyond_the_most_frequent_are_counted_together():
    many = {f"class {i}": 1000 - i for i in range(200)}
    labels = report(breakdown=Breakdown(labels=many)).to_dict()["labels"]
    assert labels[0] == {"label": "class 0", "images": 1000}
    assert labels[-1] == {"label": None, "images": sum(1000 - i for i in range(50, 200))}
    assert len(labels) == 51
