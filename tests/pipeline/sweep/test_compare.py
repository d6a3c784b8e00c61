"""The comparison of sizes, on answers whose figures are known."""

import json

import numpy as np
import pytest

from jobs.cli.compared_sizes import comparison_table
from model.network.config import VARIANTS
from model.network.cost import count_macs
from pipeline.evaluation.outcomes import Outcomes
from pipeline.page.sizes_page import sizes_page
from pipeline.sweep.compare import Measured, compare, on_common_images

NETWORK = VARIANTS["b0"]


def outcomes_of(is_right, side=224, ids=None, score=None):
    """True classes 0 and 1 in turn; a wrong answer is class 2."""
    num = len(is_right)
    true_id = np.arange(num) % 2
    return Outcomes(
        image_id=np.array(ids if ids is not None else [f"i{index:04d}" for index in range(num)], np.str_),
        true_id=true_id, label_id=np.where(is_right, true_id, 2), is_listed=np.ones(num, bool),
        score=np.full(num, 0.5, np.float32) if score is None else np.asarray(score, np.float32),
        shorter_px=np.full(num, 400), net_size=np.full((num, 2), side),
    )  # fmt: skip


def measured(name, is_right, side=224, **more):
    found = outcomes_of(np.asarray(is_right, bool), side, **more)
    return Measured(name=name, outcomes=found, lists_five=True, calibration=None, seconds=0.02)


def rights(num, wrong):
    """Right answers, with the first `wrong` of them wrong."""
    return np.arange(num) >= wrong


def test_the_cheapest_size_that_is_not_significantly_worse_is_chosen():
    found = compare(
        [
            measured("large", rights(400, 40), 384), measured("middle", rights(400, 44), 224),
            measured("small", rights(400, 100), 112),
        ],
        NETWORK,
    )  # fmt: skip
    assert (found["best"], found["chosen"]) == ("large", "middle")
    by_size = {row["size"]: row for row in found["sizes"]}
    assert by_size["small"]["p_against_best"] < 0.001 < 0.05 < by_size["middle"]["p_against_best"]
    assert by_size["small"]["difference_to_best"] == -0.15
    low, high = by_size["small"]["difference_interval"]
    assert low < -0.15 < high < 0


def test_of_equally_good_sizes_the_cheapest_is_the_best():
    found = compare([measured("large", rights(50, 5), 384), measured("small", rights(50, 5), 112)], NETWORK)
    assert (found["best"], found["chosen"]) == ("small", "small")


def test_a_cheaper_size_that_is_right_elsewhere_is_compared_image_by_image():
    """Both are right in 75 of 100, of different images: no difference. One image more would not be one, either."""
    found = compare([measured("a", rights(100, 25), 384), measured("b", ~rights(100, 75), 112)], NETWORK)
    assert found["chosen"] == "b"
    assert {row["top1"] for row in found["sizes"]} == {0.75}


def test_each_figure_of_a_size_is_the_one_of_its_answers():
    score = np.linspace(1, 0.01, 100)
    is_right = np.arange(100) < 60
    row = compare([measured("x", is_right, 112, score=score)], NETWORK)["sizes"][0]
    assert row["accepted_at_precision"] == {"0.9": 0.66, "0.95": 0.63, "0.99": 0.6}
    assert row["gmac"] == round(count_macs(NETWORK, 112, 112) / 1e9, 4)
    assert row["images_per_s"] == 50
    assert row["top1"] == row["balanced"] == 0.6
    assert row["top1_interval"] == pytest.approx([0.502, 0.691], abs=1e-3)


def test_the_mean_recall_counts_each_class_once():
    found = outcomes_of(np.ones(4, bool))
    skewed = found.take(np.array([0, 0, 0, 1]))
    wrong_ones = Outcomes(**{**skewed.__dict__, "label_id": np.array([2, 2, 2, 1])})
    size = Measured(name="x", outcomes=wrong_ones, lists_five=False, calibration=None, seconds=None)
    row = compare([size], NETWORK)["sizes"][0]
    assert (row["top1"], row["balanced"], row["top5"], row["images_per_s"]) == (0.25, 0.5, None, None)


def test_only_images_with_an_answer_at_every_size_are_compared():
    first = outcomes_of(np.ones(3, bool), ids=["a", "b", "c"])
    second = outcomes_of(np.zeros(3, bool), ids=["b", "c", "d"])
    found = on_common_images([first, second])
    assert [list(each.image_id) for each in found] == [["b", "c"], ["b", "c"]]
    assert found[1].is_right.sum() == 0


def test_without_images_nothing_is_chosen():
    none = on_common_images([outcomes_of([True], ids=["a"]), outcomes_of([True], ids=["b"])])
    sizes = [Measured(name=name, outcomes=each, lists_five=True, calibration=None, seconds=None)
             for name, each in zip("xy", none, strict=True)]  # fmt: skip
    found = compare(sizes, NETWORK)
    assert (found["images"], found["best"], found["chosen"]) == (0, None, None)
    assert "-" in comparison_table(found)
    assert "<html" in sizes_page(found, "out")


def test_the_table_and_the_page_show_the_choice():
    found = compare([measured("native", rights(90, 9), 384), measured("<b>", rights(90, 9), 112)], NETWORK)
    lines = comparison_table(found).splitlines()
    assert lines[0].split()[:2] == ["size", "top1"]
    assert lines[3] == "best: <b>; chosen, the cheapest that is not significantly worse: <b>"
    page = sizes_page(found, "s3://bucket/eval")
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "which flatters it" in page


@pytest.mark.parametrize(
    "broken",
    [{}, {"sizes": None}, {"sizes": [None, 3, {"size": []}], "chosen": {}, "images": "many"},
     {"sizes": [{"size": "x", "gmac": -1, "top1": float("nan"), "top1_interval": [1]}]}],
)  # fmt: skip
def test_a_page_is_made_of_whatever_the_file_holds(broken):
    assert "</html>" in sizes_page(broken, "out")


def test_the_comparison_is_json():
    found = compare([measured("x", rights(30, 3)), measured("y", rights(30, 4), 112)], NETWORK)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
