import pytest

from pipeline.account import Footer, Totals, discrepancies


def footer(number, first, last, listed=None, ok=None, failed=0, end=False):
    rows = last - first + 1
    totals = Totals(listed=rows if listed is None else listed, ok=rows - failed if ok is None else ok, failed=failed)
    return Footer(
        shard="s3://b/x.tar", hash16="h", slice=number, end=end, source_etag="e", first_row=first, last_row=last,
        identity="i", run_id="r", attempt="a", nonce="n", totals=totals,
    )  # fmt: skip


def test_totals_add_up():
    a = Totals(listed=3, ok=2, failed=1, failed_by_code={"x": 1}, bytes=5, seconds={"read": 1.5}, files=1)
    b = Totals(listed=2, ok=0, failed=2, failed_by_code={"x": 1, "y": 1}, macs=7, seconds={"infer": 2.0}, files=1)
    assert a + b == Totals(
        listed=5, ok=2, failed=3, failed_by_code={"x": 2, "y": 1}, bytes=5, macs=7, files=2,
        seconds={"read": 1.5, "infer": 2.0},
    )  # fmt: skip


def test_a_footer_is_read_back():
    one = footer(0, 0, 3, failed=1)
    assert Footer.from_json(one.to_json()) == one


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"shard": 1}'])
def test_a_text_that_is_no_footer_is_refused(text):
    with pytest.raises(ValueError):
        Footer.from_json(text)


def test_whole_slices_close():
    assert discrepancies([("h", 7)], [footer(1, 4, 6, end=True), footer(0, 0, 3)]) == []


def test_an_empty_shard_closes():
    assert discrepancies([("h", 0)], [footer(0, 0, -1, end=True)]) == []


@pytest.mark.parametrize(
    ("footers", "expected"),
    [
        ([footer(0, 0, 3), footer(1, 5, 6)], "begins at row 5, expected 4"),
        ([footer(0, 0, 3), footer(1, 3, 6)], "begins at row 3, expected 4"),
        ([footer(0, 0, 3, listed=3, ok=3), footer(1, 4, 6)], "spans 4 rows but lists 3"),
        ([footer(0, 0, 6, ok=6)], "= 6 ok + 0 failed"),
        ([footer(0, 0, 3)], "has 7 records but 4 published rows"),
    ],
)
def test_what_does_not_add_up_is_named(footers, expected):
    assert any(expected in sentence for sentence in discrepancies([("h", 7)], footers))
