"""The close finds every way in which the slices of a shard do not add up."""

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from pipeline.account.totals import Totals
from pipeline.output.footer import Footer
from pipeline.output.layout import SliceName
from pipeline.run.finish import finish_without_work
from pipeline.run.reconcile import discrepancies
from tests.support.simulated import SimulatedRun


def footer(number, first, last, listed=None, ok=None, failed=0, end=False):
    rows = last - first + 1
    totals = Totals(listed=rows if listed is None else listed, ok=rows - failed if ok is None else ok, failed=failed)
    return Footer(
        shard="s3://b/x.tar", hash16="h", slice=number, end=end, source_etag="e", first_row=first, last_row=last,
        identity="i", run_id="r", attempt="a", nonce="n", totals=totals,
    )  # fmt: skip


def test_whole_slices_close():
    assert discrepancies([footer(0, 0, 3), footer(1, 4, 6, end=True)], 7) == []


def test_rows_that_were_taken_out_are_accounted_for():
    assert discrepancies([replace(footer(0, 0, 6, listed=5, ok=5, end=True), pruned=(2, 3))], 7) == []
    assert discrepancies([replace(footer(0, 0, 6, end=True), pruned=(2, 3))], 7) != []


def test_an_empty_shard_closes():
    assert discrepancies([footer(0, 0, -1, end=True)], 0) == []


@pytest.mark.parametrize(
    ("footers", "expected"),
    [
        ([footer(0, 0, 3), footer(1, 5, 6)], "begins at row 5, expected 4"),
        ([footer(0, 0, 3), footer(1, 3, 6)], "begins at row 3, expected 4"),
        ([footer(0, 0, 3, listed=3, ok=3), footer(1, 4, 6)], "spans 4 rows, 0 of them taken out, but lists 3"),
        ([footer(0, 0, 6, ok=6)], "= 6 ok + 0 failed"),
        ([footer(0, 0, 3)], "has 7 records but 4 published rows"),
    ],
)
def test_what_does_not_add_up_is_named(footers, expected):
    assert any(expected in sentence for sentence in discrepancies(footers, 7))


def test_an_id_that_two_rows_have_ends_the_run_and_every_later_one_until_it_is_gone(tmp_path):
    """A copy of an output file, as somebody might make it, gives each of its rows a second one."""
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (source / name).write_bytes(b"image")
    first = SimulatedRun(source, output, 1)
    first.begin()
    first.work()
    assert first.finish().problems == ()
    assert finish_without_work(SimulatedRun(source, output, 2).run, first.ledger).problems == ()
    (file,) = (output / "data").iterdir()
    table = pq.read_table(file)
    other = replace(first.ledger.files[file.name].footer, shard="file:///other.tar", hash16="f" * 16)
    copy = file.with_name(str(SliceName("other", other.hash16, 0, True)))
    pq.write_table(table.replace_schema_metadata({b"pvtv2": other.to_json().encode()}), copy)
    again = SimulatedRun(source, output, 3)
    (problem,) = finish_without_work(again.run, again.ledger).problems
    assert problem.startswith("2 rows have the image_id of another row, such as ")
    assert file.name in problem and copy.name in problem
    copy.unlink()
    last = SimulatedRun(source, output, 4)
    assert finish_without_work(last.run, last.ledger).problems == ()
