import os
import signal
import threading
import time

import pytest

from pipeline.run.stopper import SIGNALS, Ending, Stopper, own_stopper

pytestmark = pytest.mark.usefixtures("signal_handlers")

STALLED = Ending("stalled", "nothing moves")


@pytest.fixture
def stopper():
    stopper = Stopper()
    stopper.install()
    return stopper


def send(number):
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # Python runs the handler between two instructions


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_run_and_is_its_reason(stopper, number):
    with pytest.raises(KeyboardInterrupt):
        send(number)
    assert stopper.ending == Ending("stopped", f"the run was told to stop ({signal.Signals(number).name})")


def test_a_second_signal_does_not_interrupt_what_follows_the_first(stopper, caplog):
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGTERM)
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT):
            send(number)
    except KeyboardInterrupt:
        pytest.fail("it was interrupted")
    assert stopper.ending.reason == "the run was told to stop (SIGTERM)"
    assert caplog.text.count("run.closing") == 3


def test_a_thread_ends_a_run_whose_main_thread_waits_in_a_system_call(stopper):
    never = threading.Event()
    ender = threading.Timer(0.1, stopper.stop, (STALLED,))
    ender.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        never.wait(30)
    ender.join()
    assert time.monotonic() - started < 15
    assert stopper.ending == STALLED


def test_the_first_reason_remains(stopper):
    with pytest.raises(KeyboardInterrupt):
        stopper.stop(STALLED)
        time.sleep(1)
    stopper.stop(Ending("failed", "something else"))
    send(signal.SIGTERM)
    assert stopper.ending == STALLED


def test_after_the_end_of_a_pass_alone_the_next_may_be_interrupted(stopper):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            stopper.stop(Ending("stalled", "fewer nodes", is_pass_only=True))
            time.sleep(1)
        stopper.rearm()
        assert (stopper.ending, stopper.is_armed) == (None, True)
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGTERM)
    assert stopper.ending.reason == "the run was told to stop (SIGTERM)"


def test_a_signal_at_the_end_of_a_pass_alone_ends_the_run(stopper):
    with pytest.raises(KeyboardInterrupt):
        stopper.stop(Ending("stalled", "fewer nodes", is_pass_only=True))
        time.sleep(1)
    send(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        stopper.rearm()
    assert stopper.ending == Ending("stopped", "the run was told to stop (SIGTERM)")


def test_an_end_for_good_is_not_taken_back(stopper):
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        stopper.rearm()
    assert not stopper.is_armed


def test_nothing_interrupts_the_close_of_a_run_that_is_done(stopper):
    stopper.disarm()
    send(signal.SIGTERM)
    stopper.stop(STALLED)
    assert stopper.ending is None


def test_a_stopper_of_a_block_goes_with_it():
    before = signal.getsignal(signal.SIGTERM)
    with own_stopper() as outer:
        assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGINT) is outer
        with own_stopper() as inner:
            assert signal.getsignal(signal.SIGTERM) is inner
        assert signal.getsignal(signal.SIGTERM) is outer
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_stopper_whose_run_is_over_interrupts_what_it_is_armed_for_again(stopper):
    stopper.disarm()
    with pytest.raises(KeyboardInterrupt), stopper.armed():
        send(signal.SIGTERM)
    assert stopper.ending is not None
    with stopper.armed():
        assert stopper.ending is None
    send(signal.SIGTERM)
    assert stopper.ending is None


def test_a_reason_to_end_the_run_comes_before_the_end_of_a_pass_alone(stopper):
    with pytest.raises(KeyboardInterrupt):
        stopper.stop(Ending("stalled", "fewer nodes", is_pass_only=True))
        time.sleep(1)
    stopper.stop(Ending("failed", "the lease was lost"))
    with pytest.raises(KeyboardInterrupt):
        stopper.rearm()
    assert stopper.ending == Ending("failed", "the lease was lost")


def test_a_part_of_a_program_is_ended_by_a_stopper_of_its_own_and_the_rest_goes_on(stopper):
    with own_stopper() as inner, pytest.raises(KeyboardInterrupt):
        send(signal.SIGTERM)
    assert inner.ending is not None
    assert stopper.ending is None
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGTERM)
    assert stopper.ending is not None
