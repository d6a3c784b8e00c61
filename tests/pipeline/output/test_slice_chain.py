"""The chain of one shard's files, from any attempts and in any order."""

from itertools import permutations

import pytest

from pipeline.account.totals import Totals
from pipeline.output.footer import Footer
from pipeline.output.layout import SliceName
from pipeline.output.published import PublishedFile
from pipeline.output.slice_chain import DoneSlice, chain_of


def file(number, end=False, emptied=False):
    footer = Footer(
        shard="s", hash16="0123456789abcdef", slice=number, end=end, source_etag="e", first_row=4 * number,
        last_row=4 * number + 3, identity="i", run_id="r", attempt="a", nonce="n", emptied=emptied,
        totals=Totals(listed=4, ok=4),
    )  # fmt: skip
    return PublishedFile.of(str(SliceName("s", footer.hash16, number, end)), "e", footer)


@pytest.mark.parametrize(
    ("files", "kept", "extra", "complete"),
    [
        ([], [], [], False),
        ([file(0), file(1, end=True)], ["0", "1e"], [], True),
        ([file(0), file(2, end=True)], ["0", "2e"], [], False),
        ([file(0), file(2)], ["0", "2"], [], False),
        # An attempt that lost its source early said that slice 0 was the last.
        ([file(0), file(0, end=True), file(1), file(2, end=True)], ["0", "1", "2e"], ["0e"], True),
        ([file(0, end=True), file(1), file(2, end=True)], ["0e"], ["1", "2e"], True),
        ([file(1), file(0, end=True), file(0)], ["0e"], ["0", "1"], True),
        ([file(0), file(1, end=True), file(1, emptied=True)], ["0", "1e"], [], True),
        ([file(0, emptied=True), file(1, end=True)], ["1e"], [], False),
    ],
)
def test_the_longest_whole_chain_counts(files, kept, extra, complete):
    def names(entries):
        return [f"{entry.slice}{'e' if entry.end else ''}" for entry in entries]

    for order in permutations(files):
        chain = chain_of(order)
        assert (names(chain.files), sorted(names(chain.extra)), chain.complete) == (kept, extra, complete)


def test_what_is_done_is_told_as_plans_keep_it():
    assert chain_of([file(1), file(0)]).done() == (DoneSlice(0, 0, 3), DoneSlice(1, 4, 7))
