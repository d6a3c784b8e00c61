"""A real child process, which decodes; where it must misbehave, a `sitecustomize` of the test's makes it do so."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from pipeline.chunks.failures import ErrorCode, Failure
from pipeline.chunks.size_policy import SizePolicy
from pipeline.decode.decode_image import DecodedImage, FailedImage, decode_image
from pipeline.decode.isolated import IsolatedDecoder
from pipeline.workers import isolation
from pipeline.workers.isolation import ChildError, IsolatedService
from tests.support.planted_bugs import ROOT, bug_source
from tests.support.waiting import eventually

POLICY = SizePolicy()
MISBEHAVIOUR = """
import os, pathlib, signal, time
import pipeline.decode.decode_image

real = pipeline.decode.decode_image.decode_at_sizes
print("a library greets on stdout")

def decode_at_sizes(data, policies):
    if data.startswith(b"segfault"):
        os.kill(os.getpid(), signal.SIGSEGV)
    elif data.startswith(b"exit"):
        os._exit(3)
    elif data.startswith(b"once"):
        flag = pathlib.Path(os.environ["DIED_ONCE"])
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        data = data[4:]
    elif data.startswith(b"hang"):
        pathlib.Path(os.environ.get("HANGS", os.devnull)).touch()
        time.sleep(600)
    elif data.startswith(b"noise"):
        print("noise " * 1000, flush=True)
        os.write(1, b"noise of a C library")
        data = data[5:]
    return real(data, policies)

pipeline.decode.decode_image.decode_at_sizes = decode_at_sizes
"""


@pytest.fixture
def misbehaving(tmp_path, monkeypatch):
    """From now on a child does as the first bytes of its image say."""
    (tmp_path / "sitecustomize.py").write_text(MISBEHAVIOUR)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.fixture
def decoder():
    decoder = IsolatedDecoder()
    yield decoder
    decoder.close()


def same(found, expected):
    assert type(found) is type(expected)
    if isinstance(found, FailedImage):
        assert found == expected
        return
    names = ("width", "height", "net_width", "net_height", "scale")
    assert [getattr(found, name) for name in names] == [getattr(expected, name) for name in names]
    assert found.pixels.dtype == np.uint8
    np.testing.assert_array_equal(found.pixels, expected.pixels)


def crashed(message):
    return FailedImage(failure=Failure(ErrorCode.DECODE_CRASHED, message))


def test_a_child_gives_what_decoding_here_gives(decoder, encode):
    small = SizePolicy(max_image_pixels=2000)
    for data, policy in [
        (encode(40, 36, 1), POLICY), (encode(64, 70, 2, "JPEG"), small), (encode(20, 9, 3), POLICY), (b"", POLICY),
        (b"no image", POLICY), (encode()[:-30], POLICY), (encode(1200, 1100, 4, "BMP"), POLICY),
    ]:  # fmt: skip
        same(decoder.decode(data, policy), decode_image(data, policy))


def test_one_child_serves_image_after_image(decoder, encode):
    decoder.decode(encode(), POLICY)
    child = decoder._service._child
    decoder.decode(b"no image", POLICY)
    decoder.decode(encode(), POLICY)
    assert decoder._service._child is child
    assert child.process.poll() is None


@pytest.mark.parametrize(("what", "status"), [(b"segfault", -signal.SIGSEGV), (b"exit", 3)])
def test_an_image_that_ends_its_process_is_one_failure_and_its_neighbours_are_fine(
    misbehaving, decoder, encode, what, status
):
    data = encode()
    same(decoder.decode(data, POLICY), decode_image(data, POLICY))
    message = f"decoding ended its process with status {status}"
    assert decoder.decode(what + bytes(2**20), POLICY) == crashed(message)
    same(decoder.decode(data, POLICY), decode_image(data, POLICY))


def test_an_image_is_not_to_blame_for_the_death_of_one_child(misbehaving, decoder, encode, monkeypatch, tmp_path):
    """A child may be killed for the sake of another process, at any moment."""
    monkeypatch.setenv("DIED_ONCE", str(tmp_path / "died"))
    data = encode()
    same(decoder.decode(b"once" + data, POLICY), decode_image(data, POLICY))
    assert (tmp_path / "died").exists()


def test_an_image_that_does_not_end_is_one_failure_and_its_neighbours_are_fine(
    misbehaving, decoder, encode, monkeypatch
):
    data = encode()
    same(decoder.decode(data, POLICY), decode_image(data, POLICY))
    monkeypatch.setattr(decoder, "_timeout_s", 0.25)
    assert decoder.decode(b"hang", POLICY) == crashed("decoding did not end within 0.25 s")
    monkeypatch.undo()
    same(decoder.decode(data, POLICY), decode_image(data, POLICY))


def test_what_a_library_prints_is_no_answer(misbehaving, decoder, encode, capfd):
    data = encode()
    same(decoder.decode(b"noise" + data, POLICY), decode_image(data, POLICY))
    same(decoder.decode(data, POLICY), decode_image(data, POLICY))
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.count("noise of a C library") == 1
    assert captured.err.count("a library greets on stdout") == 1


def test_a_child_that_died_between_two_images_costs_neither_its_row(decoder, encode):
    data = encode()
    decoder.decode(data, POLICY)
    process = decoder._service._child.process
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert isinstance(decoder.decode(data, POLICY), DecodedImage)


def test_an_answer_that_came_as_the_time_ran_out_counts_and_the_next_image_has_a_new_child(
    decoder, encode, monkeypatch
):
    class Late(threading.Timer):
        """It runs out at the moment in which it is cancelled."""

        def cancel(self):
            self.function(*self.args)
            super().cancel()

    data = encode()
    decoder.decode(data, POLICY)
    first = decoder._service._child
    monkeypatch.setattr(threading, "Timer", Late)
    same(decoder.decode(data, POLICY), decode_image(data, POLICY))
    monkeypatch.undo()
    same(decoder.decode(data, POLICY), decode_image(data, POLICY))
    assert decoder._service._child is not first


def descriptors():
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_a_closed_child_is_gone_and_its_descriptors_with_it(encode):
    before = descriptors()
    decoder = IsolatedDecoder()
    decoder.decode(encode(), POLICY)
    process = decoder._service._child.process
    decoder.close()
    decoder.close()
    assert process.returncode == -signal.SIGKILL
    assert descriptors() == before


def test_a_child_ends_when_nobody_is_left_to_ask_it(decoder, encode):
    decoder.decode(encode(), POLICY)
    decoder._service._child.requests.close()
    assert decoder._service._child.process.wait(20) == 0


def test_a_child_that_hangs_ends_itself_when_nobody_is_left_to_end_it(misbehaving, decoder, encode):
    """Its parent was killed, and a hanging C library never comes to see that its input has ended."""
    data = encode()
    decoder.decode(data, POLICY)
    child = decoder._service._child
    isolation._send(child.requests, ((b"hang", POLICY), 0.1 - isolation._ORPHAN_GRACE_S))
    assert child.process.wait(20) == 1


def test_a_child_that_hangs_is_killed_with_its_parent(misbehaving, tmp_path):
    """Ray's memory monitor killed a worker, and the image went on eating memory in the worker's child."""
    code = (
        "from pipeline.decode.isolated import IsolatedDecoder\nfrom pipeline.chunks.size_policy import SizePolicy\n"
        "decoder = IsolatedDecoder()\ndecoder.decode(b'', SizePolicy())\n"
        "print(decoder._service._child.process.pid, flush=True)\ndecoder.decode(b'hang', SizePolicy())"
    )
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(isolation._ROOT)]),
        "HANGS": str(tmp_path / "hangs"),
    }
    parent = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE)
    with parent:
        child = next(int(line) for line in parent.stdout if line.strip().isdigit())
        eventually((tmp_path / "hangs").exists)
        parent.kill()
    eventually(lambda: not Path(f"/proc/{child}").exists())


def test_a_service_that_cannot_start_is_an_error_and_no_images_fault():
    broken = IsolatedService("pipeline.no_such_module")
    with pytest.raises(RuntimeError, match="did not start: it ended its process with status 1"):
        broken.ask(b"x", 1.0)


BUG = "bug at pipeline/decode/jpeg.py:41: AttributeError: planted bug 4711"
RAISING = """
import pipeline.decode.decode_image

def decode_at_sizes(data, policies):
    if data.startswith(b"bug"):
        space = dict()
        exec(compile({source!r}, {file!r}, "exec"), space)
        space["bug"]()
    raise TypeError("bad data")

pipeline.decode.decode_image.decode_at_sizes = decode_at_sizes
"""


@pytest.fixture
def raising(tmp_path, monkeypatch):
    """From now on a child raises what its image says."""
    text = RAISING.format(source=bug_source(), file=str(ROOT / "pipeline/decode/jpeg.py"))
    (tmp_path / "sitecustomize.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_an_image_over_which_a_child_meets_a_bug_is_a_failure_that_names_it(raising, decoder):
    assert decoder.decode(b"bug", POLICY) == crashed(f"{BUG} (decoding)")
    assert decoder.decode(b"other", POLICY) == crashed("decoding ended its process with status 1")


def test_a_child_that_does_not_start_says_why(tmp_path, monkeypatch):
    (tmp_path / "broken_service.py").write_text("def start_service(settings):\n    raise ValueError('no device')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    what = (
        "the child process of broken_service did not start: it ended its process with status 1: ValueError: no device"
    )
    with pytest.raises(ChildError, match=f"^{what}$"):
        IsolatedService("broken_service").ask(None, 60.0)


def test_a_child_that_raises_and_does_not_end_is_waited_for_no_longer_than_for_an_answer(tmp_path, monkeypatch):
    lingering = """
import threading, time

def start_service(settings):
    return fail

def fail(request):
    threading.Thread(target=time.sleep, args=(600,)).start()
    raise ValueError("no answer")
"""
    (tmp_path / "lingering_service.py").write_text(lingering)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    service = IsolatedService("lingering_service")
    crash = service.ask(b"x", 3.0)
    service.close()
    assert crash.error == "ValueError: no answer"
