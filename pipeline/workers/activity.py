"""Who is at what, and for how long: so that a run without progress can say which step holds it up.

A process tells of what it holds when it begins, at most once a second, and does not wait for an answer; so it has told
already if it hangs in a way that lets no more Python run. Ages are measured by each machine's monotonic clock, since
the times of day of two machines differ.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

_TELL_EVERY_S = 1.0
_MOST_NAMED = 6
# From here on Ray spills by itself, and so a store that stays fuller cannot be spilled.
_SPILLS_FROM = 0.8


@dataclass(frozen=True, slots=True)
class Holding:
    """What one process holds.

    Attributes:
        step: `read`, `decode`, `infer` or `publish`.
        shard: canonical URI.
        slice: its number; None where a shard is still being cut into slices.
        first_row: index in the shard of the first record that it waits for or works on.
        held_s: seconds since it began, at the time of telling.
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
    """What one process tells: `holding` is None if it holds nothing; `node` is Ray's name of its machine."""

    host: str
    pid: int
    holding: Holding | None
    node: str | None = None

    def __str__(self) -> str:
        return f"{self.holding} (host {self.host}, pid {self.pid})"


Tell = Callable[[Note], None]


@contextmanager
def at_work(tell: Tell, step: str, shard: str, slice_number: int | None, first_row: int) -> Iterator[None]:
    """While the block runs, this process is known to hold some records."""
    _TELLER.change(Holding(step, shard, slice_number, first_row), tell)
    try:
        yield
    finally:
        _TELLER.change(None, tell)


class Teller:
    """This process' side: what it holds now, and when it has told last.

    What is begun is told at once if the last time is long enough ago, else when it will be; so is that nothing is held,
    which is always told late, since the next thing mostly follows at once.
    """

    def __init__(self, every_s: float = _TELL_EVERY_S) -> None:
        self._every_s = every_s
        self._lock = threading.Lock()
        self._holding: Holding | None = None
        self._began = self._told_at = float("-inf")
        self._told: Holding | None = None
        self._later: threading.Timer | None = None

    def change(self, holding: Holding | None, tell: Tell) -> None:
        """From now on this process holds something else."""
        now = time.monotonic()
        with self._lock:
            self._holding, self._began = holding, now
            if holding is not None and now - self._told_at >= self._every_s:
                self._tell_now(tell)
            elif self._later is None:
                self._later = threading.Timer(self._every_s, self._tell_later, (tell,))
                self._later.daemon = True
                self._later.start()

    def _tell_later(self, tell: Tell) -> None:
        with self._lock:
            self._later = None
            if self._holding is not self._told:
                self._tell_now(tell)

    def _tell_now(self, tell: Tell) -> None:
        self._told, self._told_at = self._holding, time.monotonic()
        tell(own_note(self._holding and replace(self._holding, held_s=self._told_at - self._began)))


def own_note(holding: Holding | None) -> Note:
    """A note of this process."""
    return Note(socket.gethostname(), os.getpid(), holding)


_TELLER = Teller()


class Board:
    """What has been heard of each process."""

    def __init__(self) -> None:
        self._heard: dict[tuple[str, int], tuple[float, Note]] = {}
        self._lock = threading.Lock()

    def hear(self, note: Note) -> None:
        """Takes a note in place of the last one of its process."""
        with self._lock:
            if note.holding is None:
                self._heard.pop((note.host, note.pid), None)
            else:
                self._heard[note.host, note.pid] = time.monotonic() - note.holding.held_s, note

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._heard.clear()

    def notes(self) -> list[Note]:
        """What every process holds that holds anything, with its age now."""
        now = time.monotonic()
        with self._lock:
            heard = list(self._heard.values())
        return [
            replace(note, holding=replace(note.holding, held_s=now - began))
            for began, note in heard
            if note.holding is not None
        ]


def describe(notes: Sequence[Note], silent: Sequence[str], store_use: float = 0.0) -> str:
    """One sentence: who does not answer, and which steps hold what, the longest first.

    Args:
        store_use: which part of Ray's object store is in use.
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
