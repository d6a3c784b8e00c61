"""Graphs and uploads without a GPU: streams and events do nothing, and tests see where bytes go and which graph runs.

What only CUDA can show, that copies and packs really wait for one another, is tested in `tests/gpu`.
"""

from contextlib import contextmanager, nullcontext

import pytest
import torch

from model.checkpoints.random_weights import random_weights
from model.gpu import plain
from model.gpu.engine import Engine, Ticket
from model.gpu.graphs import Graphs
from tests.support.ragged_checks import MEAN, STD, assert_like_alone

CPU = torch.device("cpu")
# Of logits around 1: in fp32 the plain operations, which stand in for the GPU's here, are up to 1.1e-5 from the truth,
# more or less by the order in which a processor sums.
ATOL = 2e-5


class Event:
    """An event; each record is a millisecond later than the record before."""

    now_ms = 0.0

    def __init__(self, enable_timing=False):
        self.enable_timing = enable_timing

    def record(self, stream):
        Event.now_ms += 1.0
        self.at_ms = Event.now_ms

    def elapsed_time(self, later):
        assert self.enable_timing and later.enable_timing
        return later.at_ms - self.at_ms

    def synchronize(self):
        pass


class Stream:
    device = CPU

    def __init__(self, device=None):
        pass

    def wait_event(self, event):
        pass

    def synchronize(self):
        pass


class Recorder:
    """A network that remembers its latest call, as a capture would."""

    def __init__(self, network):
        self.network, self.calls = network, 0

    def __call__(self, *arguments):
        self.calls += 1
        self.latest = (arguments, self.network(*arguments))
        return self.latest[1]


class Graph:
    """Repeats a captured call on the present content of its arguments, and writes into the same outputs."""

    def replay(self):
        arguments, outputs = self.captured
        again = self.recorder.network(*arguments)
        for place, value in zip(
            (*outputs.maps, outputs.embedding, outputs.logits),
            (*again.maps, again.embedding, again.logits),
            strict=True,
        ):
            place.copy_(value)


@pytest.fixture
def recorders(monkeypatch):
    """Returns a list of networks; a capture takes the latest call of the last one."""
    found = []
    empty = torch.empty

    @contextmanager
    def capture(graph, **flags):
        assert flags["capture_error_mode"] == "thread_local"
        yield
        graph.recorder, graph.captured = found[-1], found[-1].latest

    for name, fake in {
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": Graph,
        "graph": capture,
        "stream": lambda stream: nullcontext(),
        "synchronize": lambda device=None: None,
        "graph_pool_handle": lambda: (0, 0),
        "empty_cache": lambda: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch, "empty", lambda *shape, pin_memory=False, **flags: empty(*shape, **flags))
    return found


@torch.inference_mode()
def engine_with_graphs(model, recorders):
    engine = Engine(model, plain, mean=MEAN, std=STD, max_tokens=1024)
    recorders.append(Recorder(engine._network))
    engine._network = recorders[-1]
    engine._graphs = Graphs(model.config, engine._network, engine._capacities[-1], Stream())
    return engine


def test_packs_of_any_capacity_in_turn_give_what_each_image_alone_gives(narrow, photos, recorders):
    model = random_weights(narrow("b0"), 2)
    engine = engine_with_graphs(model, recorders)
    packs = [photos((64, 48), (33, 70)), photos((32, 32)), photos((40, 97), (64, 64)), photos((48, 64), (29, 60))]
    found = [engine.submit(pack, maps=True).result() for _ in range(2) for pack in packs]
    for index, output in enumerate(found):  # after all have run: none lies where a later one was written
        assert_like_alone(output, model, packs[index % 4], MEAN, STD, atol=ATOL)
    assert 2 <= engine.num_graphs() <= 3
    assert recorders[-1].calls == 3 * engine.num_graphs()  # two to warm up and one to capture


def test_the_copy_of_every_pack_is_timed_even_when_later_ones_use_its_memory(narrow, photos, recorders):
    model = random_weights(narrow("b0"), 2)
    engine = engine_with_graphs(model, recorders)
    copies = []
    for _ in range(4):
        engine.submit(photos((32, 32)))
        copies.append(engine._graphs.take_copies())
    assert [len(of_pack) for of_pack in copies] == [1] * 4
    begun, done = Event(enable_timing=True), Event(enable_timing=True)
    begun.record(None), done.record(None)
    tickets = [Ticket(None, begun, done, of_pack) for of_pack in copies]
    assert [ticket.device_s() for ticket in tickets] == [(0.001, 0.001)] * 4


def test_a_graph_that_cannot_be_captured_turns_graphs_off(narrow, photos, recorders, monkeypatch, caplog):
    @contextmanager
    def refuse(graph, **flags):
        raise RuntimeError("operation not permitted when stream is capturing")
        yield

    model, images = random_weights(narrow("b0"), 2), photos((64, 48), (33, 70))
    engine = engine_with_graphs(model, recorders)
    monkeypatch.setattr(torch.cuda, "graph", refuse)
    for _ in range(2):
        assert_like_alone(engine.submit(images).result(), model, images, MEAN, STD, atol=ATOL)
    assert caplog.text.count("graphs.off error=operation not permitted") == 1


def test_no_room_for_a_graph_lets_all_of_them_go(narrow, photos, recorders, monkeypatch):
    model = random_weights(narrow("b0"), 2)
    engine = engine_with_graphs(model, recorders)
    engine.submit(photos((32, 32)))
    assert engine.num_graphs() == 1

    @contextmanager
    def no_room(graph, **flags):
        try:
            raise torch.OutOfMemoryError("no room")
        finally:
            raise RuntimeError("capture was invalidated")
        yield

    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "graph", no_room)
        with pytest.raises(torch.OutOfMemoryError):
            engine.submit(photos(*[(64, 48)] * 5))
    assert engine.num_graphs() == 0
    images = photos((64, 48), (64, 48))
    assert_like_alone(engine.submit(images).result(), model, images, MEAN, STD, atol=ATOL)
    assert engine.num_graphs() == 1
