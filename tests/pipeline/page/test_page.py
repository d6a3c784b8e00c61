import json
import logging
import os
import re
from html import unescape
from html.parser import HTMLParser

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.page.page import render_page, write_page
from pipeline.page.parts import moment, number, shortened, text
from pipeline.page.timeline_charts import gather
from pipeline.store.store_path import StorePath
from tests.support.page_reports import IMAGE, SCRIPT, STARTED_AT, full_report, minimal_report, timeline_rows

# `make soak` asks for more.
EXAMPLES = int(os.environ.get("EXAMPLES", "10"))


class Page(HTMLParser):
    """Tags, ids, figures and headings of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.ids, self.figures, self.attributes, self._pictures = [], [], {}, [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self._pictures += [found] if tag == "img" else []
        self.attributes += [name for name, _ in attrs]
        if "id" in found:
            self.ids.append(found["id"])
        if "data-field" in found:
            self.figures[found["data-field"]] = json.loads(found["data-value"] or "null")

    def pictures(self, attribute):
        """An attribute of every picture."""
        return [found[attribute] for found in self._pictures]


def numbers(tree, path=""):
    """(dotted path, number) of all numbers in a tree."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from numbers(value, f"{path}.{key}".lstrip("."))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from numbers(value, f"{path}.{index}")
    elif isinstance(tree, int | float) and not isinstance(tree, bool):
        yield path, tree


@pytest.fixture(scope="module")
def full():
    return render_page([full_report()], [timeline_rows()])


def test_the_page_holds_the_numbers_of_the_report_exactly(full):
    shown = Page(full).figures
    expected = dict(numbers(full_report()))
    # In words beside the figures, or the bounds of what is counted.
    unshown = {"from_px", "to_px", "edges", "failures", "embed_dims", "steady_images_per_s"}
    missing = [path for path in expected if path not in shown and not unshown & set(path.split("."))]
    assert not missing
    assert {path: shown[path] for path in expected if path in shown} == {
        path: value for path, value in expected.items() if path in shown
    }


def test_every_section_is_there_and_ids_are_unique(full):
    page = Page(full)
    sections = [
        "verdict", "rates", "timeline", "time", "sizes", "labels", "scores", "samples", "failures", "shards",
        "processes", "account", "configuration", "versions",
    ]  # fmt: skip
    assert [id for id in page.ids if id in sections] == sections
    assert len(page.ids) == len(set(page.ids))
    assert not [target for target in re.findall(r'(?:href|url)[="(]+#([\w-]+)', full) if target not in page.ids]


def test_hostile_names_labels_messages_and_run_ids_stay_text():
    hostile = full_report(
        run_id=SCRIPT, status=IMAGE, reason=SCRIPT, problems=[IMAGE], versions={SCRIPT: IMAGE}, actors={IMAGE: SCRIPT}
    )
    hostile["seconds"]["steps"][SCRIPT] = 1.0
    hostile["run"]["failed_by_code"][IMAGE] = 1
    rows = timeline_rows(3)
    rows[0]["step"] = rows[1]["process"] = SCRIPT
    for page in (render_page([hostile], [rows]), render_page([hostile, hostile], [])):
        assert "script" not in Page(page).tags
        assert all(src.startswith("data:image/jpeg;base64,/9j/") for src in Page(page).pictures("src"))
        assert "onerror" not in Page(page).attributes
        assert SCRIPT in unescape(page)


def test_a_page_loads_nothing_and_forbids_it(full):
    assert "default-src 'none'" in full
    assert not re.search(r"https?://|@import|<link rel=.stylesheet|<script", full.replace("http-equiv", ""))


def test_every_chart_is_an_image_with_words_and_its_numbers(full):
    charts = re.findall(r"<svg[^>]*role=\"img\".*?</svg>", full, re.DOTALL)
    assert len(charts) == 3 + 1 + 4 + 2 + 1
    assert all("<title id=" in chart and "<desc id=" in chart for chart in charts)
    # The timeline's, the sizes', the scores', the sample's, and the labels that are not among the first.
    assert full.count("<details>") == 5
    assert full.count("<caption>") == full.count("<table>")


def test_a_sample_is_shown_with_its_labels_and_scores_and_nothing_else_is_shown_as_a_picture(full):
    samples = full_report()["samples"]
    shown = [f"data:image/jpeg;base64,{sample['thumbnail']}" for sample in samples]
    assert Page(full).pictures("src") == shown
    told = Page(full).pictures("alt")
    assert told[0] == "cat: s3://photos/train/shard-00001.tar#0001"
    assert told[1] == f"owl {SCRIPT}: s3://photos/train/{IMAGE}.jpg"
    assert told[4] == "s3://photos/train/0003.jpg"
    names = re.findall(r'<span class="name text">(.*?)</span>', full)
    assert [names[0], *names[2:]] == ["0001", "long_name_…g_name_.jpg", "0002.jpg", "0003.jpg"]
    none = {"thumbnail": "", **dict.fromkeys(("image_id", "shard", "label", "score", "width", "height"))}
    odd = ["", "%%%", "PHN2Zz4=", 7, None, "é", f'/9j/"{IMAGE}', samples[0]["thumbnail"][:-1]]
    page = render_page([full_report(samples=[{**none, "thumbnail": value} for value in odd])], [[]])
    assert "<img" not in page and 'id="samples"' not in page
    assert "<img" not in render_page([full_report(), full_report()], [])


def test_an_old_report_makes_a_page_without_the_sections_that_it_lacks():
    page = Page(render_page([minimal_report()], [[]]))
    assert {"rates", "time", "failures", "account"} <= set(page.ids)
    assert not {"verdict", "timeline", "sizes", "labels", "scores", "shards", "processes", "versions"} & set(page.ids)
    assert page.figures["rates.steady_images_per_s"] == 43.767


def test_a_report_of_nothing_makes_a_page():
    assert "<h1>" in render_page([{}], [[]])


def test_a_run_that_did_not_end_well_says_why():
    stopped = render_page([minimal_report(status="stopped", reason="SIGTERM came")], [[]])
    assert "SIGTERM came" in stopped and 'class="status status-warn">stopped' in stopped
    failed = render_page([minimal_report(status="failed", problems=["x.tar: not all of its slices"])], [[]])
    assert "x.tar: not all of its slices" in failed and 'class="status status-bad">failed' in failed


def test_runs_are_compared_in_the_order_in_which_they_began():
    later, older = full_report(), minimal_report(run_id="20251126T172350Z-aaaa", rates={"images_per_s": 12345.5})
    page = render_page([later, older], [[], []])
    assert page.index("1. 20251126T172350Z-aaaa") < page.index("2. 20261126T172350Z-ff3b")
    figures = Page(page).figures
    assert (figures["runs.0.rates.images_per_s"], figures["runs.1.rates.images_per_s"]) == (12345.5, 29.017)
    assert figures["runs.0.rates.mpix_per_s"] is None
    assert "No runs" in render_page([], [])


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(full_report())), ODD, min_size=1, max_size=4), ODD)
def test_whatever_a_report_holds_a_page_is_made(odd, row):
    report = full_report(**odd)
    rows = [row, *timeline_rows(1)]
    assert "</html>" in render_page([report], [rows])
    assert "</html>" in render_page([report, {}], []).encode().decode()


def test_a_page_that_cannot_be_made_is_a_line_in_the_log(tmp_path, caplog):
    folder = StorePath(f"file://{tmp_path}")
    page = folder.join("report.html")
    assert write_page(folder, full_report(), timeline_rows()) == page
    assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>")
    with caplog.at_level(logging.WARNING):
        assert write_page(page, full_report(), []) is None
        assert write_page(folder, None, None) == page
    assert "page.not_written" in caplog.text


def test_a_long_timeline_is_shown_in_fewer_buckets_with_the_same_sums():
    rows = timeline_rows(1000)
    timeline = gather(rows)
    assert (timeline.num_buckets, timeline.width_s) == (112, 18.0)
    assert list(timeline.steps) == ["read", "decode", "compute", "write"]
    busy_s = sum(row["busy_s"] for row in rows if row["step"] == "compute")
    assert sum(timeline.steps["compute"].busy_s) == pytest.approx(busy_s)
    assert sum(timeline.busy_share("compute")[:-1]) / 111 == pytest.approx(busy_s / 2000 / 2, rel=0.01)


def test_numbers_are_shortened_as_people_read_them():
    cases = {
        (1234567, "count"): "1,234,567", (None, "count"): "–", (0.1234, "share"): "12.3 %", (29.017, "rate"): "29.0",
        (3725.0, "seconds"): "1 h 02 min", (61.2, "seconds"): "1 min 01 s", (0.0561, "seconds"): "0.0561 s",
        (2**30, "bytes"): "1 GiB", (512, "bytes"): "512 B", (4_358_308_786_304, "large"): "4.36 trillion",
        (4194304, "setting"): "4,194,304",
    }  # fmt: skip
    assert {case: shortened(*case) for case in cases} == cases


def test_odd_values_are_read_as_none_and_odd_texts_as_texts():
    assert [number(value) for value in (True, "1", float("nan"), float("inf"), 10**400, 7)] == [None] * 5 + [7]
    assert text("a\x00\ud800b") == "a��b"
    assert len(text("x" * 10_000)) < 1000
    assert moment("no time", "20261126T172350Z-ff3b") == STARTED_AT == moment("2026-11-26T17:23:50+00:00")
    assert moment(None, "20269926T992350Z") is None
