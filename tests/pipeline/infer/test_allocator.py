import ctypes
import subprocess
import sys

import pytest

from pipeline.infer.allocator import tune_allocator

# mallinfo2: `hblks` is the number of blocks that are mappings of their own.
COUNT_MAPPINGS = """
import ctypes
from pipeline.infer.allocator import tune_allocator

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks rest".split()]

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.mallinfo2.restype = Info

def mapped(size):
    before = libc.mallinfo2().hblks
    assert libc.malloc(size)
    return libc.mallinfo2().hblks - before

print(mapped(2**26))
tune_allocator()
print(mapped(2**26), mapped(2**31))
"""


class Libc:
    """A C library that notes what it is told."""

    def __init__(self, answer):
        self.calls = []
        self.answer = answer

    def mallopt(self, parameter, value):
        self.calls.append((parameter, value))
        return self.answer


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc before 2.33 cannot be asked")
def test_large_blocks_are_no_longer_mappings_of_their_own():
    done = subprocess.run([sys.executable, "-c", COUNT_MAPPINGS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0", "1"]


def test_both_thresholds_are_set_to_a_gibibyte(monkeypatch, caplog):
    libc = Libc(1)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: libc)
    tune_allocator()
    assert libc.calls == [(-3, 2**30), (-1, 2**30)]
    assert caplog.text == ""


def test_an_allocator_that_refuses_is_said(monkeypatch, caplog):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Libc(0))
    tune_allocator()
    assert [record.getMessage() for record in caplog.records] == [
        "allocator.not_tuned parameter=-3",
        "allocator.not_tuned parameter=-1",
    ]


def test_another_c_library_and_another_system_are_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    tune_allocator()
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(ctypes, "CDLL")
    tune_allocator()


LEAVE_GAPS = """
import ctypes, re
from pathlib import Path
from pipeline.infer.allocator import Trimmer, tune_allocator

def resident_mib():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
tune_allocator()
trimmer = Trimmer({slack_mib} * 2**20)
blocks = [libc.malloc(2**20) for _ in range(200)]
for block in blocks:
    ctypes.memset(block, 1, 2**20)
for block in blocks[:-1]:  # the last one holds the end of the heap in its place
    libc.free(block)
held = resident_mib()
trimmed = trimmer.trim_if_due()
print(trimmed, round(held - resident_mib()))
"""


@pytest.mark.parametrize(("slack_mib", "is_trimmed"), [(100, True), (500, False)])
def test_what_lies_free_between_blocks_in_use_is_handed_back_once_it_is_much(slack_mib, is_trimmed):
    code = LEAVE_GAPS.replace("{slack_mib}", str(slack_mib))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    trimmed, freed_mib = done.stdout.split()
    assert trimmed == str(is_trimmed)
    assert (int(freed_mib) > 150) == is_trimmed
