import json
from dataclasses import replace

import pytest

from pipeline.account.totals import Totals
from pipeline.output.footer import Footer


def footer(number, first, last, listed=None, ok=None, failed=0, end=False):
    rows = last - first + 1
    totals = Totals(listed=rows if listed is None else listed, ok=rows - failed if ok is None else ok, failed=failed)
    return Footer(
        shard="s3://b/x.tar", hash16="h", slice=number, end=end, source_etag="e", first_row=first, last_row=last,
        identity="i", run_id="r", attempt="a", nonce="n", totals=totals,
    )  # fmt: skip


def test_totals_add_up():
    a = Totals(listed=3, ok=2, failed=1, failed_by_code={"x": 1}, seconds={"read": 1.5}, counts={"packs": 3}, files=1)
    b = Totals(listed=2, ok=0, failed=2, failed_by_code={"x": 1, "y": 1}, macs=7, seconds={"infer": 2.0}, files=1)
    assert a + b == Totals(
        listed=5, ok=2, failed=3, failed_by_code={"x": 2, "y": 1}, macs=7, files=2,
        seconds={"read": 1.5, "infer": 2.0}, counts={"packs": 3},
    )  # fmt: skip


def test_a_footer_is_read_back():
    one = replace(footer(0, 0, 3, failed=1), pruned=(1, 2), own=Totals(listed=1, ok=1), emptied=True)
    assert Footer.from_json(one.to_json()) == one


def test_what_was_passed_over_stands_where_older_versions_read_counts():
    totals = Totals(listed=1, ok=1, counts={"packs": 3}, passed_over={".img": 8, "(none)": 1})
    one = replace(footer(0, 0, 0), totals=totals, own=totals)
    assert Footer.from_json(one.to_json()) == one
    said = json.loads(one.to_json())["totals"]
    assert "passed_over" not in said
    assert said["counts"] == {"packs": 3, "passed_over .img": 8, "passed_over (none)": 1}
    assert "passed_over" not in footer(0, 0, 0).to_json()


def test_the_endings_that_totals_name_stay_few():
    parts = [Totals(passed_over={f".e{number}": 1, ".img": 2}) for number in range(500)]
    found = sum(parts, Totals()).passed_over
    assert found[".img"] == 1000
    assert len(found) < 50 and sum(found.values()) == 1500


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"shard": 1}'])
def test_a_text_that_is_no_footer_is_refused(text):
    with pytest.raises(ValueError):
        Footer.from_json(text)
