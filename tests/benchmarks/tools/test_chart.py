"""The chart of small results."""

import xml.etree.ElementTree as ElementTree

from benchmarks.tools.chart import INK, bars, svg


def result(contender: str, ratio: float, allocator: str = "tuned") -> dict:
    return {
        "case": "224x224", "allocator": allocator, "precision": "fp32", "contender": contender,
        "ours_times_as_fast": ratio,
    }  # fmt: skip


MODEL = {
    "benchmark": "model",
    "variant": "b0",
    "results": [result("ours, packed", 1.0), result("timm, batch 1", 1.5), result("timm, batch 1", 2.5, "default")],
}
JOB = {
    "benchmark": "job",
    "precision": "fp32",
    "machine": {"cpus": 2},
    "pixels": {"ours": "native", "Daft": "native", "small": "224"},
    "ours_times_as_fast": {
        "ours": {"whole_images_per_s": 1.0},
        "Daft": {"whole_images_per_s": 1.25},
        "small": {"whole_images_per_s": 0.5},
    },
}


def test_bars_are_the_peers_on_equal_terms():
    assert bars(MODEL) == [("224x224, fp32", [("timm, batch 1", 1.5)])]
    assert bars(JOB) == [("Daft", [("whole run", 1.25)])]


def test_the_chart_is_an_svg_in_the_pages_own_colour_and_always_the_same():
    text = svg([MODEL, JOB])
    found = [element.text for element in ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}text")]
    assert "1.50" in found and "1.25" in found and "0.50" not in found
    assert "currentColor" in text and INK not in text
    assert svg([MODEL, JOB]) == text
