"""The collector actor, without an actor's process; see `test_collect.py` for what it gathers and publishes."""

from types import SimpleNamespace

import pytest
import ray

from model.network.config import VARIANTS
from pipeline.chunks.columns import CLASSIFY_COLUMNS, output_schema
from pipeline.errors import CollectorsGoneError
from pipeline.flow import collectors as sink
from pipeline.flow.collectors import CollectorActor, Collectors
from pipeline.publish.config import SinkConfig
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri
from pipeline.workers.activity import Holding, Note, own_note

HOLDING = Holding("publish", "s3://b/x.tar", 0, 0)


@pytest.fixture
def actor(tmp_path):
    config = SinkConfig(
        output=StorePath(canonical_uri(str(tmp_path))), schema=output_schema(CLASSIFY_COLUMNS, ()),
        identity="i", run_id="r", network=VARIANTS["b0"],
    )  # fmt: skip
    return CollectorActor(config)


def take(actor, chunk):
    actor.take(chunk.to_table(), chunk.pass_number, HOLDING)


def published(actor):
    return [receipt.footer.slice for receipt in actor.answer(0).state.receipts]


def test_a_collector_that_was_restarted_in_the_middle_of_a_pass_takes_what_comes_from_then_on(actor, answered_chunk):
    """It took nothing until the next pass: with one collector, the rest of a pass was done for nothing."""
    take(actor, answered_chunk(2, 2, slice_rows=4, pass_number=2))  # its first half went with the life before
    take(actor, answered_chunk(4, 2, slice_number=1, slice_first_row=4, slice_rows=2, pass_number=2))
    assert published(actor) == [1]
    # What is left of the pass before is still not taken.
    take(actor, answered_chunk(0, 2, slice_rows=2, pass_number=1))
    assert published(actor) == [1]


def test_its_lives_are_told_apart(actor):
    other = CollectorActor(actor._collector._config)
    assert actor.answer(0).life == actor.answer(5).life != other.answer(0).life


def test_a_collector_that_was_closed_takes_nothing_until_the_next_pass(actor, answered_chunk):
    actor.start_pass(1)
    actor.close()
    take(actor, answered_chunk(0, 2, slice_rows=2, pass_number=1))
    assert published(actor) == []
    actor.start_pass(2)
    take(actor, answered_chunk(0, 2, slice_rows=2, pass_number=1))
    assert published(actor) == []
    take(actor, answered_chunk(0, 2, slice_rows=2, pass_number=2))
    assert published(actor) == [0]


def test_a_pass_begins_with_an_empty_board_and_a_chunk_that_is_done_is_held_no_more(actor, answered_chunk):
    take(actor, answered_chunk(0, 2, pass_number=1))
    assert actor.notes() == []
    actor.post(own_note(HOLDING))
    assert len(actor.notes()) == 1
    actor.start_pass(2)
    assert actor.notes() == []


def test_what_was_told_before_the_first_chunk_came_is_remembered(actor, answered_chunk):
    """A new collector learns of its pass by a chunk; who held something before could not be named."""
    told = Holding("read", "s3://b/y.tar", None, 0)
    actor.post(own_note(HOLDING))
    actor.post(Note("another", 1, told))
    take(actor, answered_chunk(0, 2, pass_number=1))
    assert [note.holding.shard for note in actor.notes()] == [told.shard]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_pass_for_which_nobody_is_there_to_write_rows_is_not_begun(monkeypatch, replaced):
    """Where a cluster has lost all nodes with processors, no collector comes back."""
    asked = []

    def get(reference, timeout):
        asked.append(reference)
        raise ray.exceptions.RayActorError if replaced and len(asked) == 1 else ray.exceptions.GetTimeoutError

    monkeypatch.setattr(sink.ray, "get", get)
    pending = SimpleNamespace(start_pass=SimpleNamespace(remote=lambda number: f"pass {number}"))
    collectors = Collectors.__new__(Collectors)
    collectors.actors, collectors._are_new, collectors._start = [pending], False, lambda: pending
    with pytest.raises(CollectorsGoneError, match=r"collector 0 did not answer within 60 s .* pass 2: are nodes"):
        collectors.start_pass(2)
    assert asked == ["pass 2"] * (2 if replaced else 1)
