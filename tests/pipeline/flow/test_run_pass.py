"""The report of a pass on dropped blocks, and its actor; the tests of the jobs run the flow itself."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ray.data.exceptions import SystemException
from ray.exceptions import OutOfDiskError, RayTaskError

from model.network.config import VARIANTS
from pipeline.chunks.chunk import Chunk
from pipeline.chunks.task import Classify
from pipeline.flow import run_pass as flow
from pipeline.flow.infer_actor import InferActor
from pipeline.flow.ray_errors import Dropped, StepError, dropped_for
from pipeline.infer.config import InferConfig
from tests.support import waiting_step
from tests.support.chunks import decoded_chunk, pixels
from tests.support.waiting_step import WaitingNetwork

NO_ROOM = Dropped("OutOfDiskError: Local disk is full", for_room=True)


def test_an_error_of_ray_s_own_is_named_and_not_the_mark_that_ray_data_hangs_below_it():
    """The reason was "SystemException: no message"."""
    error = OutOfDiskError("Local disk is full")
    error.__cause__ = SystemException()
    assert dropped_for(error) == NO_ROOM


def test_an_error_in_a_task_is_named_and_not_its_wrapping():
    assert dropped_for(RayTaskError("decode", "a traceback", OutOfDiskError("Local disk is full"))) == NO_ROOM
    assert dropped_for(RayTaskError("decode", "a traceback", ValueError("no image"))) == Dropped("ValueError: no image")


@pytest.fixture
def actor(monkeypatch):
    """(chunks that will come) -> the actor's class as Ray makes it, without Ray."""

    def make(num_chunks: int, ahead: int = 0) -> InferActor:
        monkeypatch.setattr(waiting_step.WaitingStep, "ahead", ahead)
        monkeypatch.setattr(flow.ray, "get", lambda reference: reference)
        config = InferConfig(
            config_json=None,
            preprocessor_json=None,
            variant=None,
            labels=None,
            task=Classify(),
            device="cpu",
            precision="fp32",
        )
        return InferActor(WaitingNetwork(num_chunks), b"", config, VARIANTS["b0"], lambda note: None)

    return make


def test_a_chunk_is_unpacked_while_another_is_in_the_network_and_one_at_a_time_is(actor):
    table = decoded_chunk(pixels(40, 36), np.zeros((33, 33, 3), np.uint8)).to_table()
    called = actor(12)
    with ThreadPoolExecutor(2) as calls:  # as many as Ray makes
        answers = list(calls.map(called, [table] * 12))
    for answer in answers:
        assert Chunk.from_table(answer).rows.column("label_id").to_pylist() == [1, 1]


def test_chunks_are_submitted_as_far_ahead_as_the_step_asks(actor):
    table = decoded_chunk(pixels(40, 36)).to_table()
    called = actor(12, ahead=2)
    assert called._thread.ahead == 2
    with ThreadPoolExecutor(4) as calls:
        assert len(list(calls.map(called, [table] * 12))) == 12
    assert called._under_way_s == pytest.approx(0, abs=1e-9)


def test_a_chunk_waits_in_vain_where_calls_come_one_by_one(actor, monkeypatch):
    monkeypatch.setattr(waiting_step, "PATIENCE_S", 0.1)
    table = decoded_chunk(pixels(40, 36)).to_table()
    with pytest.raises(StepError, match="chunk 2 of 2 was not unpacked"):
        actor(2)(table)
