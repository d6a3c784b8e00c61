"""A GPU that is lost for good, and one that comes later: a run in a process of its own."""

import pytest

from tests.chaos.nodes import NUM_ROWS, told_by

pytestmark = pytest.mark.drill


def test_a_run_goes_on_with_the_gpus_that_are_left_and_takes_those_that_come_back(tmp_path):
    """It used to wait for the lost actor until nothing had come for half an hour."""
    told, done = told_by("tests.chaos.fewer_gpus", tmp_path / "told.json", timeout_s=900)
    assert told == {
        "status": "done", "actors": [2, 1, 2], "listed": NUM_ROWS, "rows": NUM_ROWS, "is_exact": True,
    }, done.stderr  # fmt: skip
    assert done.returncode == 0
    # In a pass that was given up for it, or in the one after a pass in which Ray let go of the lost actor's work.
    assert "divided again" in done.stderr and "1 cuda actors of" in done.stderr
    assert "2 GPUs are there again, enough for 2 cuda actors" in done.stderr
