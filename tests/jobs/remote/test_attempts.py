"""Requests that are repeated until they are answered, and the choice of the attempt that is followed."""

import pytest

from jobs.remote import attempts
from jobs.remote.attempts import NoAnswerError, ask_until_answered, find_or_create


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(attempts, "_RETRY_S", 0.01)


def in_turn(*answers):
    """Returns a request that gets these answers in turn; an answer that is an error is raised."""
    turns = iter(answers)

    def ask():
        answer = next(turns)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return ask


def test_a_request_is_repeated_until_it_is_answered_and_each_repetition_is_logged(caplog):
    away = NoAnswerError("head:8265: refused; is it up?", "refused")
    assert ask_until_answered(in_turn(away, away, "job"), 5.0, "cluster.no_answer") == "job"
    assert [record.getMessage() for record in caplog.records] == [
        "cluster.no_answer asked_for_another_s=5 error=refused"
    ] * 2


def test_the_last_request_s_error_is_raised_when_patience_ends():
    with pytest.raises(NoAnswerError, match="is it up"):
        ask_until_answered(in_turn(NoAnswerError("is it up?")), 0.0, "cluster.no_answer")


def test_an_error_that_does_not_pass_is_raised_at_once():
    with pytest.raises(ValueError, match="refused"):
        ask_until_answered(in_turn(ValueError("refused")), 5.0, "cluster.no_answer")


@pytest.mark.parametrize(
    ("states", "followed", "created"),
    [
        ({}, ("a", False), ["a"]),
        ({"a": "running"}, ("a", False), []),
        ({"a": "done"}, ("a", False), []),
        ({"a": "failed"}, ("a-2", False), ["a-2"]),
        ({"a": "failed", "a-2": "failed", "a-3": "done"}, ("a-3", False), []),
        ({"a": "failed", "a-2": "failed", "a-3": "failed"}, ("a-3", True), []),
    ],
)
def test_the_first_attempt_that_has_not_failed_is_followed(states, followed, created):
    made = []

    def create(name, number):
        made.append(name)
        return True

    assert find_or_create("a", 3, states.get, create) == followed
    assert made == created


@pytest.mark.parametrize(("state", "followed"), [("running", "a"), ("failed", "a-2"), (None, "a")])
def test_an_attempt_that_another_start_created_meanwhile_is_looked_at_again(state, followed):
    found = iter([None, state, "running"])
    assert find_or_create("a", 3, lambda name: next(found), lambda name, number: False) == (followed, False)
