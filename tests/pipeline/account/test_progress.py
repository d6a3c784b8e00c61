"""The share of a run's work that is done."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.account.progress import share_done
from pipeline.account.totals import Totals


def test_without_anything_to_do_there_is_no_share():
    assert share_done(Totals(), 0, None) is None
    assert share_done(Totals(), 0, 10.0) is None


def test_bytes_tell_as_long_as_nothing_else_does():
    assert share_done(Totals(bytes=25, macs=7), 100, None) == 0.25
    assert share_done(Totals(bytes=25), 100, 10.0) == 0.25  # all failed so far
    assert share_done(Totals(bytes=130, macs=7), 100, None) == 1.0


@pytest.mark.parametrize("small_first", [True, False])
def test_work_counts_by_what_it_costs_the_network(small_first):
    """A tenth of the bytes are nine tenths of the work; the order of the inputs must not mislead by much."""
    parts = [(900, 100.0), (100, 900.0)]
    first, _ = parts if small_first else parts[::-1]
    done = Totals(bytes=first[0], macs=int(first[1]))
    truth, by_bytes = first[1] / 1000, first[0] / 1000
    share = share_done(done, 1000, 1000.0)
    assert abs(share - truth) < abs(by_bytes - truth)


def test_a_sample_that_was_wrong_is_believed_less_and_less():
    """It says ten times what it is."""
    shares = [share_done(Totals(bytes=done, macs=done), 1000, 10_000.0) for done in (1, 500, 900, 1000)]
    assert shares == sorted(shares)
    assert shares[0] < 0.001
    assert shares[1] < 0.5
    assert shares[2] > 0.45
    assert shares[3] == 1.0


@given(
    st.integers(0, 10**12), st.integers(0, 10**18), st.integers(0, 10**12), st.none() | st.floats(0, 1e18)
)  # fmt: skip
def test_it_is_a_share(num_bytes, macs, planned_bytes, planned_macs):
    share = share_done(Totals(bytes=num_bytes, macs=macs), planned_bytes, planned_macs)
    assert share is None or 0 <= share <= 1
    if share is not None and num_bytes >= planned_bytes:
        assert share == 1
