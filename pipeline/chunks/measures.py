"""Measurements that the steps take of a chunk: seconds, counts and marks. The chunk carries them to the collector.

Durations are measured by the monotonic clock of a process. The end of a piece of work is a time of day, which processes
of several machines share. Every measurement is a float64, so that all attempts at a chunk have the same size.
"""

import os
import socket
import zlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

SECONDS = (
    "first_byte",  # store: from a request to the first byte of the answer, summed over requests
    "fetch",  # store: whole requests, summed over requests; several run at a time
    "read",  # read task: all its work for the chunk, waiting included
    "read_wait",  # read task: the part of `read` for which the task waited for the store
    "decode",  # decode task
    "hand_over",  # from the end of decoding to the actor: in a queue, and on the way between machines
    "wait",  # actor: the time for which its network thread was idle until the chunk came
    "unpack",  # actor: makes views of the chunk's images while the network runs
    "upload",  # GPU: copies pixels to the device while the previous pack runs
    "compute",  # network: the device's own time on a GPU, the thread's time on a CPU
    "download",  # GPU: waits for results and copies them to the host
    "rows",  # actor: turns results into rows while the network runs
)
"""Steps whose seconds are summed, in the order in which a chunk passes the steps."""

COUNTS = (
    "requests",  # requests to the store, repeated ones included
    "retries",  # requests that repeated a failed one
    "bytes_in",  # bytes that the store sent
    "tokens",  # tokens of stage 1 of all images
    "packs",  # packs that ran
    "pack_room",  # tokens that have room in the packs that ran
)
"""Names of the counts that are summed."""

SPANS = ("read", "decode", "compute")
"""Steps that record when they ended and in which process, for the timeline."""

MEASURES = (
    *(f"{step}_s" for step in SECONDS),
    *COUNTS,
    *(f"{step}_{mark}" for step in SPANS for mark in ("ended", "process")),
    "peak_gflops",  # speed of the actor's device in a matrix product of the network's dtype
)
"""Names of all measurements of a chunk."""

Measured = Mapping[str, float]
"""Every measurement of a chunk by name; 0 for a step that the chunk has not reached."""

NOTHING: Measured = dict.fromkeys(MEASURES, 0.0)

_PID_BITS = 22  # bits of the largest process id on Linux


class Span(NamedTuple):
    """One piece of work of one process.

    Attributes:
        step: One of `SPANS`, or `write`.
        process: Number of the process (`process_number`).
        ended: `time.time()` at the end of the work.
        seconds: Duration of the work.
    """

    step: str
    process: float
    ended: float
    seconds: float


def process_number() -> float:
    """Returns a number that identifies the current process among the processes of several machines."""
    return float((zlib.crc32(socket.gethostname().encode()) & 0xFFFFF) << _PID_BITS | os.getpid())


def machine_of(process: float) -> float:
    """Returns a number that all processes on the machine of `process` share."""
    return float(int(process) >> _PID_BITS << _PID_BITS)


def process_name(process: float) -> str:
    """Returns the number of a process as text: the machine, then the process id."""
    machine, pid = divmod(int(process), 1 << _PID_BITS)
    return f"{machine:05x}/{pid}"


def seconds_of(measured: Iterable[Measured]) -> dict[str, float]:
    """Returns the sum of each step's seconds over some chunks, rounded to microseconds.

    The sums are rounded because every footer holds them as text.
    """
    sums = _sums([f"{step}_s" for step in SECONDS], SECONDS, measured)
    return {step: round(seconds, 6) for step, seconds in sums.items()}


def counts_of(measured: Iterable[Measured]) -> dict[str, int]:
    """Returns the sum of each count over some chunks."""
    return {name: int(value) for name, value in _sums(COUNTS, COUNTS, measured).items()}


def spans_of(measured: Measured) -> list[Span]:
    """Returns the spans of one chunk: one span for each step of `SPANS` that the chunk has passed."""
    return [
        Span(step, measured[f"{step}_process"], measured[f"{step}_ended"], measured[f"{step}_s"])
        for step in SPANS
        if measured[f"{step}_ended"]
    ]


def _sums(keys: Iterable[str], names: Iterable[str], measured: Iterable[Measured]) -> dict[str, float]:
    parts = list(measured)
    return {name: sum(part[key] for part in parts) for key, name in zip(keys, names, strict=True)}
