"""The loop over passes, with passes that are made up: which of them count, and what ends the run."""

from types import SimpleNamespace

import pytest

from pipeline.cluster.processors import Processors
from pipeline.flow.ray_errors import Dropped
from pipeline.run import passes as module
from pipeline.run.ledger import Ledger
from pipeline.run.passes import Outcome, Passes

WHOLE, GIVEN_UP = Outcome(num_published=1), Outcome(num_published=0, is_given_up=True)
PROCESSORS = Processors(
    device="cpu", num_cpus=2, num_actors=(1, 1), actor_cpus=1.0, actor_gpus=0.0, read_cpus=0.5, decode_cpus=0.5,
    num_collectors=1,
)  # fmt: skip


class Ended(BaseException):
    """The run was ended, as a signal does it."""


@pytest.fixture
def passes(monkeypatch):
    """(outcomes) -> passes that have these outcomes, and leave work missing whatever they do."""

    def make(*outcomes, max_passes=3):
        def stop(ending):
            raise Ended(ending.reason)

        collectors = SimpleNamespace(stop=lambda: stopped.append(True))
        stopped: list[bool] = []
        for name, value in {
            "put_object": lambda data: data, "ignore_advice": lambda: None, "sample_work": lambda run, ledger: None,
            "sink_config": lambda run: None, "Collectors": lambda config, processors: collectors,
            "missing": lambda plan, files: iter(["a shard"]), "refresh": lambda run, ledger: None,
            "wait_until_free": lambda fits, timeout_s: True,
        }.items():  # fmt: skip
            monkeypatch.setattr(module, name, value)
        run = SimpleNamespace(
            checkpoint=SimpleNamespace(files=SimpleNamespace(weights=b"")), plan=None,
            config=SimpleNamespace(compute=SimpleNamespace(max_passes=max_passes)),
        )  # fmt: skip
        ledger = Ledger(0.0)
        made = Passes(run, ledger, PROCESSORS, lambda progress: None, None, SimpleNamespace(stop=stop))
        made._capacity = SimpleNamespace(divided=lambda: SimpleNamespace(fits=None))
        left = iter(outcomes)

        def one_pass():
            ledger.begin_pass()
            return next(left)

        monkeypatch.setattr(made, "one_pass", one_pass)
        return made, ledger, stopped

    return make


def test_there_are_as_many_passes_as_may_be_and_those_that_are_given_up_do_not_count(passes):
    made, ledger, stopped = passes(WHOLE, GIVEN_UP, WHOLE, GIVEN_UP, WHOLE, max_passes=3)
    made.run()
    assert ledger.num_passes == 5
    assert stopped == [True]


def test_what_the_last_pass_dropped_is_what_the_passes_dropped(passes):
    first, last = Dropped("the first"), Dropped("the last")
    made, _, _ = passes(Outcome(1, [first]), Outcome(0, [last]), max_passes=2)
    assert made.run() == [last]


def test_ten_passes_in_a_row_that_are_given_up_before_they_publish_anything_end_the_run(passes):
    some = Outcome(num_published=1, is_given_up=True)
    made, ledger, stopped = passes(*[GIVEN_UP] * 9, some, *[GIVEN_UP] * 10)
    with pytest.raises(Ended, match="the cluster changed 10 times in a row before anything was published"):
        made.run()
    assert ledger.num_passes == 20
    assert stopped == [True]
