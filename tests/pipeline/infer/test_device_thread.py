"""The order in which work is handed over and waited for, and what errors do."""

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from pipeline.infer.device_thread import DeviceThread
from tests.support.waiting import PATIENCE_S, eventually


class Accelerator:
    """Notes what it is asked to do, and is held up until `goes_on` is set."""

    def __init__(self):
        self.done, self.threads, self.goes_on = [], set(), threading.Event()

    def submit(self, number):
        self._note("submit", number)
        return partial(self._wait, number)

    def _wait(self, number):
        self._note("wait", number)
        return number

    def _note(self, what, number):
        if number == 0:
            assert self.goes_on.wait(PATIENCE_S)
        self.threads.add(threading.get_ident())
        self.done.append((what, number))


def run_all(thread, accelerator, count):
    """The results of so many works, all of which have come before the first is done."""
    with ThreadPoolExecutor(count) as pool:
        results = []
        for number in range(count):
            results.append(pool.submit(thread.run, partial(accelerator.submit, number)))
            # The first one is held up in the thread, the others have come.
            eventually(lambda number=number: thread._coming.qsize() == number)
        accelerator.goes_on.set()
        return [result.result(PATIENCE_S) for result in results]


@pytest.mark.parametrize(
    ("ahead", "order"),
    [
        (0, "submit 0, wait 0, submit 1, wait 1, submit 2, wait 2"),
        (1, "submit 0, submit 1, wait 0, submit 2, wait 1, wait 2"),
        (2, "submit 0, submit 1, submit 2, wait 0, wait 1, wait 2"),
    ],
)
def test_work_is_handed_over_ahead_of_what_is_waited_for(ahead, order):
    thread, accelerator = DeviceThread(), Accelerator()
    thread.ahead = ahead
    assert run_all(thread, accelerator, 3) == [0, 1, 2]
    assert ", ".join(f"{what} {number}" for what, number in accelerator.done) == order
    assert len(accelerator.threads) == 1 and threading.get_ident() not in accelerator.threads


def test_the_last_work_is_waited_for_though_nothing_comes_after_it():
    thread = DeviceThread()
    thread.ahead = 3
    assert thread.run(lambda: lambda: "alone") == "alone"


def fails():
    raise ValueError("no such kernel")


@pytest.mark.parametrize("submit", [fails, lambda: fails], ids=["on submitting", "on waiting"])
@pytest.mark.parametrize("ahead", [0, 1])
def test_an_error_is_raised_where_the_work_came_from_and_other_work_goes_on(submit, ahead):
    thread = DeviceThread()
    thread.ahead = ahead
    for _ in range(2):
        with pytest.raises(ValueError, match="no such kernel"):
            thread.run(submit)
        assert thread.run(lambda: lambda: 5) == 5


class Result:
    """What a weak reference can be had of."""


def test_nothing_of_a_work_that_is_done_is_kept():
    """A chunk is megabytes, and the next one may come late."""
    thread = DeviceThread()
    thread.ahead = 1
    result = thread.run(lambda: Result)
    gone = weakref.ref(result)
    del result
    gc.disable()
    try:
        eventually(lambda: gone() is None)
    finally:
        gc.enable()
