"""The strikes of a drill against a run: processes that are killed, and faults of the store.

Every step of a run is a request that the proxy sees. So a strike comes at the n-th request of a kind, exactly: while it
is on its way, or when it was done and the answer is lost.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tests.support.fault_proxy import Cut, Fault, FaultProxy, Hang, Lose, Refuse, Reset, Rule, Slow

Victim = Literal["driver", "infer", "collector", "read", "decode", "node"]

# What Ray calls the processes while they are at work.
TITLES = {
    "infer": r"ray::MapWorker\(MapBatches\(\w*InferActor\)\)\.(?!__init__)",
    "collector": r"ray::CollectorActor",
    "read": r"ray::\S*MapBatches\(_read\)",
    "decode": r"ray::\S*MapBatches\(_decode\)",
}
_HUNT_S = 120.0


@dataclass(frozen=True)
class Point:
    """A protocol point: a request, in which IN and OUT stand for the paths of input and output.

    Attributes:
        is_done: the store has done it, and the answer is lost; else it never hears of it.
        at_work: wait after it for a process of this step to be at work.
    """

    request: str
    is_done: bool
    at_work: str | None = None


POINTS = {
    "after the lease": Point("^PUT OUT/_lease.json", True),
    "after _job.json": Point("^PUT OUT/_job.json", True),
    "after plan.parquet": Point("^PUT OUT/runs/.*/plan.parquet", True),
    "after some files are emptied": Point("^PUT OUT/data/", True),
    "in the middle of reading": Point("^GET IN/", False),
    "in the middle of decoding": Point("^GET IN/", True, "decode"),
    "in the middle of inference": Point("^GET IN/", True, "infer"),
    "before a slice's PUT": Point("^PUT OUT/data/", False),
    "after a slice's PUT": Point("^PUT OUT/data/", True),
    "before the index": Point("^PUT OUT/_index.parquet", False),
    "after the index": Point("^PUT OUT/_index.parquet", True),
    "before the report": Point("^PUT OUT/runs/.*/report.json", False),
    "after the report": Point("^PUT OUT/runs/.*/report.json", True),
}


@dataclass(frozen=True)
class StoreFault:
    """One kind of fault.

    Attributes:
        times: most requests that meet it; None: from its first on, until the store is healed.
        probability: that a request meets it.
    """

    fault: Fault
    request: str
    times: int | None = 1
    probability: float = 1.0


FAULTS = {
    "503 storm": StoreFault(Refuse(503, "SlowDown"), " (IN|OUT)/", 10, 0.5),
    "500": StoreFault(Refuse(500, "InternalError"), " (IN|OUT)/", 3, 0.5),
    "reset": StoreFault(Reset(), " (IN|OUT)/", 4, 0.4),
    "reset in an upload": StoreFault(Reset(uploaded=0.5), "^PUT OUT/", 2),
    "truncated body": StoreFault(Cut(0.5), "^GET (IN|OUT)/", 4, 0.6),
    "truncated body, then reset": StoreFault(Cut(0.3, reset=True), "^GET IN/", 4, 0.6),
    "slow answer": StoreFault(Slow(20_000), "^GET IN/", 8, 0.5),
    "hung request": StoreFault(Hang(), " (IN|OUT)/", 1),
    "hung answer to a PUT": StoreFault(Hang(heard=True), "^PUT OUT/(data|runs|_job|_index)", 1),
    "lost answer to a PUT": StoreFault(Lose(), "^PUT OUT/", 3, 0.5),
    "write permission lost": StoreFault(Refuse(403, "AccessDenied"), "^PUT OUT/", None),
    "read permission lost": StoreFault(Refuse(403, "AccessDenied"), "^GET IN/", None),
}


@dataclass(frozen=True)
class Kill:
    """A process is killed at the `nth` request (from 0) of a point."""

    victim: Victim
    point: str
    nth: int = 0


@dataclass(frozen=True)
class Inject:
    """A fault is injected from the `nth` request (from 0) on that it may befall."""

    fault: str
    nth: int = 0


Strike = Kill | Inject


@dataclass
class Armed:
    """A strike that waits for its request.

    Attributes:
        missed: why nothing was killed although the point was reached.
        has_killed: a process was killed.
        over: set when the command has ended, after which nothing is killed any more.
    """

    strike: Strike
    rule: Rule
    missed: str | None = None
    has_killed: bool = False
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def has_struck(self) -> bool:
        return self.has_killed if isinstance(self.strike, Kill) else self.rule.num_fired > 0


def arm(
    strike: Strike, proxy: FaultProxy, places: tuple[str, str], find: Callable[..., list[int]],
    kill: Callable[[Victim, int | None], None],
) -> Armed:  # fmt: skip
    """Prepares a strike.

    Args:
        places: paths of the input and of the output, as they stand in requests.
        find: title -> process numbers; `beside_head`: of other nodes than the head.
        kill: kills a victim; the number is that of its process, or of one of the node's, where it was found by its
            title.
    """

    def pattern(text: str) -> str:
        return text.replace("IN", places[0]).replace("OUT", places[1])

    if isinstance(strike, Inject):
        kind = FAULTS[strike.fault]
        rule = proxy.add(
            pattern(kind.request), kind.fault, times=kind.times, probability=kind.probability, skip=strike.nth
        )
        return Armed(strike, rule)
    point, beside_head = POINTS[strike.point], strike.victim == "node"

    def strike_now() -> None:
        pid = None
        for title in _hunted(strike):
            if (pid := hunt(title)) is None:
                armed.missed = f"no process was seen at work: {title}"
                return
        if not armed.over.is_set():
            kill(strike.victim, pid)
            armed.has_killed = True

    def hunt(title: str) -> int | None:
        deadline = time.monotonic() + _HUNT_S
        while time.monotonic() < deadline and not armed.over.is_set():
            if found := find(title, beside_head=beside_head):
                return found[0]
            time.sleep(0.002)
        return None

    # Whoever is waited for must not wait for this request.
    needs_time = point.at_work is not None or strike.victim in ("decode", "infer", "node")
    apart = threading.Thread(target=strike_now, daemon=True)
    fault: Fault = Lose() if point.is_done else Reset()
    meanwhile = apart.start if needs_time else strike_now
    armed = Armed(strike, proxy.add(pattern(point.request), fault, times=1, skip=strike.nth, meanwhile=meanwhile))
    return armed


def _hunted(strike: Kill) -> list[str]:
    """Titles of what must be seen at work, one after the other, before somebody is killed."""
    at_work = POINTS[strike.point].at_work
    if strike.victim == "node":
        # A node that has nothing to do is no loss.
        return [TITLES[at_work] if at_work else "|".join(TITLES.values())]
    return [TITLES[step] for step in dict.fromkeys((at_work, strike.victim)) if step in TITLES]
