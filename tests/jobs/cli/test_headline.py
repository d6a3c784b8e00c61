"""One sentence about a run that has ended."""

import pytest

from jobs.cli.headline import headline

DONE = {
    "status": "done", "message": "done", "exit_code": 0, "ok": 1204, "failed": 3, "seconds": 212.4,
    "dataset": {"rows": 50310, "review": 812, "drift": None},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "done: 1,204 images labelled (3 failed) in 212 s; data set 50,310 rows, 812 to review"),
        ({"failed": 0, "ok": 1, "dataset": {"rows": 1}}, "done: 1 image labelled in 212 s; data set 1 row"),
        ({"dataset": None}, "done: 1,204 images (3 failed) in 212 s"),
        (
            {"ok": 0, "failed": 0, "message": "nothing to do: every row is published"},
            "done: nothing to do: every row is published; data set 50,310 rows, 812 to review",
        ),
        (
            {"exit_code": 8, "error": "labels drifted", "dataset": {"rows": 50310, "review": 0}},
            "exit 8: labels drifted; 1,204 images labelled (3 failed) in 212 s; data set 50,310 rows",
        ),
        (
            {"exit_code": 9, "status": "stopped", "message": "stopped", "dataset": None},
            "exit 9: stopped; 1,204 images (3 failed) in 212 s",
        ),
    ],
)
def test_it_says_how_the_run_ended_and_what_was_done(changes, text):
    assert headline({**DONE, **changes}) == text


def test_a_run_that_never_began_is_told_by_its_error():
    assert headline({"status": "failed", "exit_code": 3, "error": "no input"}) == "exit 3: no input"


def test_what_is_absent_or_odd_is_left_out():
    assert headline({}) == "ended"
    odd = {"exit_code": 1, "error": 7, "ok": "many", "seconds": True, "dataset": [], "status": None}
    assert headline(odd) == "exit 1: ended"


def test_an_error_that_quotes_a_name_calls_nobody_and_stays_short():
    text = headline({"exit_code": 3, "error": f"<!channel> @everyone\n{'x' * 999}"})
    assert text.startswith("exit 3: ‹!channel› ＠everyone xxx")
    assert len(text) == len("exit 3: ") + 300
