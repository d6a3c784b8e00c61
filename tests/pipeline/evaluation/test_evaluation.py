"""Accuracies, calibration and confusion of a few rows, reckoned by hand, and sums that do not depend on the files."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.chunks.columns import BASE_COLUMNS, CLASSIFY_COLUMNS
from pipeline.evaluation.evaluation import BAND_SIDES_PX, COLUMNS, NUM_BINS, Tally, describe, per_class, tally
from pipeline.evaluation.true_labels import understand

LABELS = ("cat", "dog", "cow", "hen", "elk", "fox")
SCHEMA = pa.schema([field for field in (*BASE_COLUMNS, *CLASSIFY_COLUMNS) if field.name in COLUMNS])


def row(true, *ranked, score=0.5, width=400, height=300):
    if not ranked:
        return {"status": "failed", "error_code": "decode.corrupt", "true_label": true}
    return {
        "status": "ok", "true_label": true, "width": width, "height": height, "label_id": ranked[0], "score": score,
        "topk_ids": list(ranked),
    }  # fmt: skip


def table(*rows):
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


TRUTH = understand(LABELS, LABELS, 6)


def described(*rows, truth=TRUTH, most_k=5):
    return describe(tally(table(*rows), truth), truth, LABELS, most_k)


def test_an_image_counts_as_right_within_the_first_k_of_its_classes():
    found = described(
        row("cat", 0, 1, 2, 3, 4), row("dog", 0, 1, 2, 3, 4), row("elk", 0, 1, 2, 3, 4), row("fox", 0, 1, 2, 3, 4)
    )
    assert found["accuracy"] == {"top1": 0.25, "top5": 0.75, "top1_failed_counted_wrong": 0.25}
    assert found["evaluated"] == 4


def test_rows_that_cannot_be_judged_are_counted_apart():
    truth = understand([*LABELS, "yak"], LABELS, 6)
    found = described(
        row("cat", 0, 1), row("cat"), row(None, 0, 1), row(None), row("yak", 0, 1), row("yak"), truth=truth
    )
    assert {name: found[name] for name in ("rows", "evaluated", "failed", "unlabelled", "unknown")} == {
        "rows": 6, "evaluated": 1, "failed": 1, "unlabelled": 2, "unknown": 2,
    }  # fmt: skip
    assert found["unknown_labels"] == ["yak"]
    assert found["accuracy"]["top1"] == 1.0
    assert found["accuracy"]["top1_failed_counted_wrong"] == 0.5


@pytest.mark.parametrize("score", [float("nan"), float("inf"), None])
def test_a_score_that_is_no_number_is_no_prediction(score):
    rows = [row("cat", 0, score=0.5), row("dog", 0, score=score), row(None, 0, score=score)]
    found = described(*rows)
    assert (found["evaluated"], found["failed"], found["not_finite"], found["unlabelled"]) == (1, 1, 2, 1)
    assert (found["mean_score"], found["calibration_error"], found["accuracy"]["top1"]) == (0.5, 0.5, 1.0)
    assert [entry["failed"] for entry in found["classes"]] == [0, 1]
    json.dumps(found, allow_nan=False)


def test_an_accuracy_that_the_rows_cannot_tell_is_not_told():
    assert set(described(row("cat", 0, 1), most_k=2)["accuracy"]) == {"top1", "top1_failed_counted_wrong"}
    nothing = described(row("cat"), row(None, 1, 0))
    assert (nothing["accuracy"]["top1"], nothing["calibration_error"]) == (None, None)


def test_each_class_has_its_recall_and_precision():
    total = tally(table(row("cat", 0), row("cat", 0), row("cat", 1), row("dog", 1), row("dog"), row("hen", 0)), TRUTH)
    keys = ("label", "images", "predicted", "failed", "recall", "precision")
    assert [tuple(found[key] for key in keys) for found in per_class(total, LABELS)] == [
        ("cat", 3, 3, 0, pytest.approx(2 / 3, abs=1e-6), pytest.approx(2 / 3, abs=1e-6)),
        ("dog", 1, 2, 1, 1.0, 0.5),
        ("hen", 1, 0, 0, 0.0, None),
    ]
    assert total.confusion == {(0, 0): 2, (0, 1): 1, (1, 1): 1, (3, 0): 1}


def test_the_calibration_error_is_the_gap_between_score_and_accuracy_in_each_bin():
    rows = [row("cat", 0, score=0.9)] * 3 + [row("dog", 0, score=0.9)] + [row("dog", 0, score=0.1)] * 4
    found = described(*rows)
    # Four rows are right three times at 0.9, four never at 0.1.
    assert found["calibration_error"] == pytest.approx(0.5 * 0.15 + 0.5 * 0.1, abs=1e-6)
    assert found["mean_score"] == pytest.approx(0.5, abs=1e-6)
    full = [entry for entry in found["bins"] if entry["images"]]
    assert [(entry["images"], entry["accuracy"]) for entry in full] == [(4, 0.0), (4, 0.75)]


@pytest.mark.parametrize(("score", "place"), [(0.0, 0), (1.0, NUM_BINS - 1), (0.5, NUM_BINS // 2)])
def test_every_score_has_a_bin(score, place):
    assert np.flatnonzero(tally(table(row("cat", 0, score=score)), TRUTH).bins[:, 0]).tolist() == [place]


@pytest.mark.parametrize(
    ("size", "band"),
    [((32, 900), 0), ((64, 64), 1), ((500, 127), 1), ((128, 128), 2), ((1023, 2000), 4), ((1024, 1024), 5)],
)
def test_an_image_belongs_to_the_band_of_its_shorter_side(size, band):
    bands = described(row("cat", 0, width=size[0], height=size[1]))["bands"]
    assert [entry["images"] for entry in bands] == [int(i == band) for i in range(len(BAND_SIDES_PX))]
    assert bands[band]["top1"] == 1.0
    assert bands[0]["shorter_side_px"] == [0, 64]
    assert bands[-1]["shorter_side_px"] == [1024, None]


def test_classes_of_one_name_are_right_for_one_another():
    labels = ("crane", "heron", "crane")
    truth = understand(["crane"], labels, 3)
    found = tally(table(row("crane", 2, 1), row("crane", 1, 2), row("crane", 0, 2)), truth)
    assert found.correct.tolist() == [2, 1, 0, 0, 0]
    assert found.confusion == {(0, 0): 2, (0, 1): 1}


@given(
    st.lists(st.tuples(st.sampled_from([*LABELS, None]), st.permutations(range(6)), st.floats(0, 1)), max_size=30),
    st.data(),
)
def test_the_sums_do_not_depend_on_how_the_rows_lie_in_files(drawn, data):
    rows = [row(true, *ranked[: 5 if score < 0.9 else 0], score=score) for true, ranked, score in drawn]
    rows = [entry if entry["status"] == "ok" or entry["true_label"] else row(None, 0, 1, 2, 3, 4) for entry in rows]
    cut = data.draw(st.integers(0, len(rows)))
    whole, parts = tally(table(*rows), TRUTH), tally(table(*rows[:cut]), TRUTH) + tally(table(*rows[cut:]), TRUTH)
    assert describe(whole, TRUTH, LABELS, 5) == describe(parts, TRUTH, LABELS, 5)
    assert describe(Tally() + whole, TRUTH, LABELS, 5) == describe(whole, TRUTH, LABELS, 5)
    assert whole.rows == whole.evaluated + whole.failed + whole.unlabelled + whole.unknown
