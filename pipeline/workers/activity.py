"""Notes about the current work of every process: a run without progress names the step that holds up the run.

A process sends a note when it begins to work on some records, at most once a second, and does not wait for an answer.
So the note is mostly sent before the work starts, and helps even if the work hangs and no more Python code runs in the
process. Durations are measured by the monotonic clock of each machine, since the times of day of two machines differ.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

_NOTIFY_EVERY_S = 1.0
_MOST_NAMED = 6
# Ray spills objects to disk if more than this share of its store is in use. So if a store stays fuller, spilling fails.
_SPILLS_FROM = 0.8


@dataclass(frozen=True, slots=True)
class Holding:
    """The records that one process works on.

    Attributes:
        step: Name of the step: `read`, `decode`, `infer` or `publish`.
        shard: Canonical URI of the shard.
        slice: Number of the slice; None while a shard is being cut into slices.
        first_row: Index in the shard of the first record that the process waits for or works on.
        held_s: Seconds between the beginning of the work and the note.
    """

    step: str
    shard: str
    slice: int | None
    first_row: int
    held_s: float = 0.0

    def __str__(self) -> str:
        what = self.shard if self.slice is None else f"slice {self.slice} of {self.shard}"
        return f"{self.step} holds {what} from row {self.first_row} for {self.held_s:.0f} s"


@dataclass(frozen=True, slots=True)
class Note:
    """A note of one process about its work.

    Attributes:
        host: Name of the process' machine.
        pid: Id of the process on that machine.
        holding: Records that the process works on; None if the process is idle.
        node: Id that Ray gave the machine; None until the note is sent.
    """

    host: str
    pid: int
    holding: Holding | None
    node: str | None = None

    def __str__(self) -> str:
        return f"{self.holding} (host {self.host}, pid {self.pid})"


Notify = Callable[[Note], None]
"""A function that sends a note."""


@contextmanager
def at_work(notify: Notify, step: str, shard: str, slice_number: int | None, first_row: int) -> Iterator[None]:
    """Reports that this process works on some records until the block ends."""
    _REPORTER.change(Holding(step, shard, slice_number, first_row), notify)
    try:
        yield
    finally:
        _REPORTER.change(None, notify)


class Reporter:
    """Sends the notes of this process.

    A note about new work is sent at once if the last note is at least `every_s` seconds old, else within `every_s`
    seconds. A note that the process is idle always waits, because new work mostly follows at once.
    """

    def __init__(self, every_s: float = _NOTIFY_EVERY_S) -> None:
        self._every_s = every_s
        self._lock = threading.Lock()
        self._holding: Holding | None = None
        self._began = self._sent_at = float("-inf")
        self._sent: Holding | None = None
        self._later: threading.Timer | None = None

    def change(self, holding: Holding | None, notify: Notify) -> None:
        """Takes the records that this process works on now, None for an idle process; sends a note now or later."""
        now = time.monotonic()
        with self._lock:
            self._holding, self._began = holding, now
            if holding is not None and now - self._sent_at >= self._every_s:
                self._send(notify)
            elif self._later is None:
                self._later = threading.Timer(self._every_s, self._send_later, (notify,))
                self._later.daemon = True
                self._later.start()

    def _send_later(self, notify: Notify) -> None:
        with self._lock:
            self._later = None
            if self._holding is not self._sent:
                self._send(notify)

    def _send(self, notify: Notify) -> None:
        self._sent, self._sent_at = self._holding, time.monotonic()
        notify(own_note(self._holding and replace(self._holding, held_s=self._sent_at - self._began)))


def own_note(holding: Holding | None) -> Note:
    """Returns a note with the host and the id of this process."""
    return Note(socket.gethostname(), os.getpid(), holding)


_REPORTER = Reporter()


class Board:
    """The last note of each process that is at work."""

    def __init__(self) -> None:
        self._notes: dict[tuple[str, int], tuple[float, Note]] = {}
        self._lock = threading.Lock()

    def post(self, note: Note) -> None:
        """Replaces the last note of a process by this note; removes the last note if the process is idle."""
        with self._lock:
            if note.holding is None:
                self._notes.pop((note.host, note.pid), None)
            else:
                self._notes[note.host, note.pid] = time.monotonic() - note.holding.held_s, note

    def clear(self) -> None:
        """Removes all notes."""
        with self._lock:
            self._notes.clear()

    def notes(self) -> list[Note]:
        """Returns a note for each process that is working: what it works on, and for how many seconds (`held_s`)."""
        now = time.monotonic()
        with self._lock:
            notes = list(self._notes.values())
        return [
            replace(note, holding=replace(note.holding, held_s=now - began))
            for began, note in notes
            if note.holding is not None
        ]


def describe(notes: Sequence[Note], silent: Sequence[str], store_use: float = 0.0) -> str:
    """Returns one sentence that names collectors and nodes without an answer, and the work that has taken longest.

    Args:
        notes: Notes of processes that are at work.
        silent: Names of collectors and nodes that do not answer.
        store_use: Share of Ray's object store that is in use.
    """
    ordered = sorted(notes, key=lambda note: -(note.holding.held_s if note.holding else 0.0))
    parts = [*(f"{name} does not answer" for name in silent), *map(str, ordered[:_MOST_NAMED])]
    if len(ordered) > _MOST_NAMED:
        parts.append(f"and {len(ordered) - _MOST_NAMED} more")
    if store_use > _SPILLS_FROM:
        parts.append(
            f"Ray's object store is {store_use:.0%} full, and if it cannot be spilled, no step can hand on what it "
            "has made; is the disk that Ray spills to full or gone?"
        )
    if not parts:
        return "no step is at work: Ray gives out no tasks; are the cluster's CPUs or GPUs taken by another job?"
    return "; ".join(parts)
