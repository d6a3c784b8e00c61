"""A ledger takes what collectors say, in whatever state they are, and forgets nothing."""

from types import SimpleNamespace

import pytest

from pipeline.account.totals import Totals
from pipeline.publish.collector import CollectorState
from pipeline.run.ledger import Ledger


def state(listed=0, first_row_at=None, **more):
    return CollectorState(arrived=Totals(listed=listed), first_row_at=first_row_at, **more)


def test_the_first_row_remains_the_first_when_its_collector_is_started_again():
    ledger = Ledger(0.0)
    ledger.take_states([state(), state()])
    assert ledger.first_row_at is None
    ledger.take_states([state(first_row_at=5.0), state(first_row_at=4.0)])
    ledger.take_states([state(first_row_at=5.0), state()])
    ledger.take_states([state(first_row_at=5.0), state(first_row_at=9.0)])
    assert ledger.first_row_at == 4.0


def test_the_mark_of_progress_changes_with_each_chunk_that_arrives_also_a_second_time():
    ledger = Ledger(0.0)
    marks = [ledger.progress_mark]
    for new in (state(), state(3), state(3, replayed_chunks=1)):
        ledger.take_states([new])
        marks.append(ledger.progress_mark)
    assert len(set(marks)) == 4
    ledger.take_states([state(3, replayed_chunks=1)])
    assert ledger.progress_mark == marks[-1]


def test_one_collector_that_cannot_publish_is_enough():
    ledger = Ledger(0.0)
    ledger.take_states([state(), state(fatal="the store refuses")])
    assert ledger.fatal == "the store refuses"


def test_files_that_the_run_wrote_replace_those_of_their_names_and_a_listing_replaces_all():
    a, b, again = (SimpleNamespace(file=name) for name in ("a", "b", "a"))
    ledger = Ledger(0.0, [a, b])
    ledger.take_files([again])
    assert dict(ledger.files) == {"a": again, "b": b}
    ledger.take_listing([b])
    assert dict(ledger.files) == {"b": b}


def test_a_ledger_is_changed_by_its_verbs_alone():
    with pytest.raises(AttributeError):
        Ledger(0.0).bound = "bounded"
