"""What is measured on a chunk's way: seconds, counts and marks, each where it happens, carried along with the chunk.

One clock a process: durations by its monotonic clock, ends of work by its time of day, which is what processes on
several machines have in common. Everything is a float64, so that all attempts at a chunk have the same size.
"""

import os
import socket
import zlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

SECONDS = (
    "first_byte",  # store: from requests to the beginning of their answers, summed over requests
    "fetch",  # store: whole requests, summed over requests, of which several run at a time
    "read",  # read task: all it did for the chunk, waiting included
    "read_wait",  # of that: it waited for the store
    "decode",  # decode task
    "hand_over",  # from the end of decoding to the actor: queued, and moved between machines
    "wait",  # the network's thread had nothing to do before this chunk came
    "unpack",  # actor: views on the chunk's images, beside the network
    "upload",  # GPU: copying pixels to it, beside the pack before
    "compute",  # the network: of a GPU its own time, of a CPU that of the thread
    "download",  # GPU: waiting for results and copying them to the host
    "rows",  # actor: answers into rows, beside the network
)
"""Steps whose seconds are summed, in the order in which a chunk meets them."""

COUNTS = (
    "requests",  # to the store, repeated ones included
    "retries",  # of them: repeated after a failure
    "bytes_in",  # that the store sent
    "tokens",  # of stage 1, of all images
    "packs",  # that ran
    "pack_room",  # tokens for which those packs had room
)
"""What is counted, and summed."""

SPANS = ("read", "decode", "compute")
"""Steps that tell when they ended and in which process, for the timeline."""

MEASURES = (
    *(f"{step}_s" for step in SECONDS),
    *COUNTS,
    *(f"{step}_{mark}" for step in SPANS for mark in ("ended", "process")),
    "peak_gflops",  # what the actor's device reaches in a matrix product of the network's type
)
"""Names of all measures of a chunk."""

Measured = Mapping[str, float]
"""Every measure of a chunk, 0 where it has not come so far."""

NOTHING: Measured = dict.fromkeys(MEASURES, 0.0)

_PID_BITS = 22  # what Linux has at most


class Span(NamedTuple):
    """Work of one process.

    Attributes:
        step: of `SPANS`, or `write`.
        process: as `process_number` gives it.
        ended: `time.time()`.
        seconds: that it took.
    """

    step: str
    process: float
    ended: float
    seconds: float


def process_number() -> float:
    """A number that tells processes apart, also those of several machines."""
    return float((zlib.crc32(socket.gethostname().encode()) & 0xFFFFF) << _PID_BITS | os.getpid())


def machine_of(process: float) -> float:
    """A number for all processes of its machine, as if it were one."""
    return float(int(process) >> _PID_BITS << _PID_BITS)


def process_name(process: float) -> str:
    """The number as text: which machine, and the process there."""
    machine, pid = divmod(int(process), 1 << _PID_BITS)
    return f"{machine:05x}/{pid}"


def seconds_of(measured: Iterable[Measured]) -> dict[str, float]:
    """Seconds of each step, summed; to the microsecond, since every footer holds them as text."""
    sums = _sums([f"{step}_s" for step in SECONDS], SECONDS, measured)
    return {step: round(seconds, 6) for step, seconds in sums.items()}


def counts_of(measured: Iterable[Measured]) -> dict[str, int]:
    """What was counted, summed."""
    return {name: int(value) for name, value in _sums(COUNTS, COUNTS, measured).items()}


def spans_of(measured: Measured) -> list[Span]:
    """The spans of one chunk; of steps that it did not meet there are none."""
    return [
        Span(step, measured[f"{step}_process"], measured[f"{step}_ended"], measured[f"{step}_s"])
        for step in SPANS
        if measured[f"{step}_ended"]
    ]


def _sums(keys: Iterable[str], names: Iterable[str], measured: Iterable[Measured]) -> dict[str, float]:
    parts = list(measured)
    return {name: sum(part[key] for part in parts) for key, name in zip(keys, names, strict=True)}
