"""One drill: nights of disturbed runs over one output, each night repeated until done, then the comparison."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from tests.chaos.comparing import Compared, compare
from tests.chaos.drivers import Driver, Ended
from tests.chaos.ground import Ground, Output
from tests.chaos.ray_cluster import NUM_OTHERS
from tests.chaos.strikes import Armed, Inject, Kill, Strike, Victim, arm
from tests.chaos.world import State
from tests.support import fault_proxy
from tests.support.fault_proxy import FaultProxy
from tests.support.waiting import eventually

# Commands after the disturbed ones, until one ends with 0.
_MAX_CALM_ATTEMPTS = 4
_LATE_PATIENCE_S = 240.0


@dataclass(frozen=True)
class Late:
    """A run that comes as far as a PUT, which arrives when another run has done all the work.

    Attributes:
        file: pattern of the file's name.
        nth: it is the `nth` such PUT, from 0.
        suspended: the driver is stopped and goes on; else it is killed, and its request was on the way.
        then: the inputs of all later runs; None: the same.
    """

    file: str = ""
    nth: int = 0
    suspended: bool = False
    then: State | None = None


@dataclass(frozen=True)
class Night:
    """One night: what the inputs are, and what befalls each of the first commands.

    Attributes:
        prune: take out the rows of what is gone.
        late: a writer that is overtaken comes first.
    """

    state: State
    attempts: tuple[tuple[Strike, ...], ...] = ()
    prune: bool = False
    late: Late | None = None


@dataclass(frozen=True)
class Drill:
    """A sequence of nights.

    Attributes:
        name: what it drills.
        loses_node: it is held on a cluster of three nodes, one of which is lost.
    """

    name: str
    nights: tuple[Night, ...]
    loses_node: bool = False

    @property
    def strikes(self) -> list[Strike]:
        """All that it does to runs."""
        return [strike for night in self.nights for attempt in night.attempts for strike in attempt]


@dataclass
class Outcome:
    """What came of a drill.

    Attributes:
        kills, faults: by kind; a fault counts once for each request that met it.
        missed: strikes that came to nothing.
        attempts: commands that were needed.
        compared: of each night.
        problems: sentences; empty if all is well.
        rows_read, rows_listed: rows of the objects that were fetched, as the proxy saw it, and of the plan.
    """

    name: str
    kills: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    attempts: int = 0
    compared: list[Compared] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    codes: list[int | None] = field(default_factory=list)
    rows_read: float = 0.0
    rows_listed: int = 0
    seconds: float = 0.0

    @property
    def is_right(self) -> bool:
        return not self.problems and all(compared.is_equal for compared in self.compared)


def run_drill(drill: Drill, ground: Ground, seed: int = 0) -> Outcome:
    """Runs a drill to its end, whatever comes; a command that hangs is a problem like others."""
    outcome = Outcome(drill.name)
    started = time.monotonic()
    with ExitStack() as until_done:
        output = ground.new_output()
        if drill.loses_node:
            until_done.callback(ground.cluster.kill_others)
            ground.cluster.start_others()
        for night in drill.nights:
            proxy = until_done.enter_context(FaultProxy(ground.server.endpoint_url, seed=seed))
            try:
                _Night(night, ground, output, proxy, outcome).run()
            except (TimeoutError, AssertionError) as error:
                outcome.problems.append(f"{type(error).__name__}: {error}")
                break
        num_lost = sum(times for kill, times in outcome.kills.items() if kill.startswith("node "))
        num_left = ground.cluster.num_others
        if drill.loses_node and num_left != NUM_OTHERS - num_lost:
            outcome.problems.append(f"{num_lost} of {NUM_OTHERS} nodes were killed, but {num_left} are left")
    outcome.seconds = time.monotonic() - started
    return outcome


class _Night:
    """One night of a drill under way."""

    def __init__(self, night: Night, ground: Ground, output: Output, proxy: FaultProxy, outcome: Outcome) -> None:
        self._night, self._ground, self._output, self._proxy, self._outcome = night, ground, output, proxy, outcome
        self._driver: Driver | None = None
        self._last: Ended | None = None
        self._undecided: set[str] = set()
        # Files that must stay as they are, unless their object is one of the changed.
        self._published: dict[str, str] = {}
        self._changed: set[str] = set()
        self._may_rewrite = False

    def run(self) -> None:
        night = self._night
        self._published = self._output.files()
        self._change(night.state)
        code: int | None = None
        if night.late:
            code = self._overtake(night.late)
        for strikes in night.attempts:
            code = self._attempt(strikes).code
        left = _MAX_CALM_ATTEMPTS
        while code != 0 and left:
            code = self._attempt(()).code
            left -= 1
        if code == 0 and self._may_rewrite:
            code = self._attempt((), "--retry-failed", "source.unreadable").code
        if code != 0:
            self._outcome.problems.append(f"the command never ended with 0: {self._outcome.codes}")
        self._verify()

    def _attempt(self, strikes: Sequence[Strike], *flags: str) -> Ended:
        """One command, disturbed."""
        ground, outcome, proxy = self._ground, self._outcome, self._proxy
        # One that is killed need not be warm, and the warm one is kept for the next; it also knows of fewer nodes.
        needs_new = any(isinstance(strike, Kill) and strike.victim in ("driver", "node") for strike in strikes)
        driver = ground.drivers.make() if needs_new else ground.drivers.take()
        self._driver = driver
        armed = [arm(strike, proxy, self._output.paths, ground.cluster.find, self._kill) for strike in strikes]
        num_requests = len(proxy.requests)
        may_not_read = any(isinstance(it, Inject) and it.fault == "read permission lost" for it in strikes)
        if may_not_read:
            self._may_rewrite = True
        driver.start([*self._output.arguments(proxy.endpoint_url), *(["--prune"] * self._night.prune), *flags])
        ended = driver.wait()
        # Whatever was ill is healed.
        proxy.clear()
        for one in armed:
            one.over.set()
        self._count(armed)
        outcome.attempts += 1
        outcome.codes.append(ended.code)
        self._last = ended
        if ended.code == 0:
            ground.drivers.give_back(driver)
        else:
            driver.close()
        if ended.code is None and not any(_kills_driver(one.strike) and one.has_struck for one in armed):
            outcome.problems.append(f"the driver died by itself, see {ended.log}")
        # One that may read nothing from its start on is told so before any work.
        if ended.code in ((1, 2, 4, 7) if may_not_read else (1, 2, 3, 4, 7)):
            outcome.problems.append(f"exit {ended.code}: {ended.summary.get('error')}, see {ended.log}")
        outcome.rows_read += self._output.rows_fetched(proxy.requests[num_requests:])
        self._published |= {name: etag for name, etag in self._output.files().items() if name not in self._published}
        return ended

    def _count(self, armed: Sequence[Armed]) -> None:
        for one in armed:
            strike = one.strike
            if not one.has_struck:
                self._outcome.missed.append(f"{strike}: {one.missed or 'its request never came'}")
            elif isinstance(strike, Kill):
                self._outcome.kills[f"{strike.victim} {strike.point}"] += 1
            else:
                self._outcome.faults[strike.fault] += one.rule.num_fired

    def _kill(self, victim: Victim, pid: int | None) -> None:
        if victim == "node":
            self._ground.cluster.kill_node(pid)
        elif victim == "driver":
            assert self._driver is not None
            self._driver.signal(signal.SIGKILL)
        else:
            assert pid is not None
            self._ground.cluster.kill(pid)

    def _overtake(self, late: Late) -> int | None:
        """A run comes to a PUT, another one does all the work, then the PUT arrives; the code of one more run."""
        ground, output = self._ground, self._output
        driver = ground.drivers.make()
        is_there, may_go_on = threading.Event(), threading.Event()

        def wait() -> None:
            driver.signal(signal.SIGSTOP if late.suspended else signal.SIGKILL)
            is_there.set()
            may_go_on.wait(_LATE_PATIENCE_S)

        # A suspended driver asks again when it goes on; of one that died, the request is still on its way.
        fault = fault_proxy.Reset() if late.suspended else fault_proxy.Late()
        request = f"^PUT {output.paths[1]}/data/{late.file}"
        held = self._proxy.add(request, fault, times=1, skip=late.nth, meanwhile=wait)
        try:
            prune = ["--prune"] * self._night.prune
            driver.start([*output.arguments(self._proxy.endpoint_url, deadline_s=_LATE_PATIENCE_S), *prune])
            assert is_there.wait(_LATE_PATIENCE_S), "the late writer never came to its PUT"
            if late.suspended:
                output.free_lease()
            if late.then is not None and not late.suspended:
                self._undecided = set(output.state) - set(late.then)
            self._change(late.then)
            with FaultProxy(ground.server.endpoint_url) as other:
                proxy, self._proxy = self._proxy, other
                self._attempt(())
                self._proxy = proxy
        finally:
            may_go_on.set()
            driver.signal(signal.SIGCONT)
        ended = driver.wait()
        driver.close()
        eventually(lambda: late.suspended or held.num_answered > 0)
        self._outcome.codes.append(ended.code)
        self._outcome.attempts += 1
        self._outcome.kills["late writer, suspended" if late.suspended else "late writer, its PUT on the way"] += 1
        if late.suspended and ended.code in (None, 0):
            self._outcome.problems.append(f"a run that lost its lease ended with {ended.code}, see {ended.log}")
        # What a late writer can do at worst is put right by the next run.
        return self._attempt(()).code

    def _change(self, state: State | None) -> None:
        """Makes the inputs others in the middle of a night."""
        if state is not None:
            changed = self._output.take(state)
            self._changed |= changed
            self._outcome.rows_listed += self._output.rows_of(changed)

    def _verify(self) -> None:
        outcome, output = self._outcome, self._output
        folder = output.download()
        expected, reference = output.expected(self._night.prune), self._ground.reference
        compared = compare(folder, output.input_prefix, expected, reference, self._undecided)
        outcome.compared.append(compared)
        if not compared.is_equal:
            outcome.problems.append(f"not equal to an undisturbed run: {compared}")
        outcome.problems += output.strange_names()
        outcome.problems += output.open_reports()
        if self._last is not None and self._last.summary.get("rows_in_output") != compared.rows:
            outcome.problems.append(
                f"the last command counts other rows than the {compared.rows}, see {self._last.log}"
            )
        if not self._may_rewrite:
            now = output.files()
            outcome.problems += [
                f"{name} was written again"
                for name, etag in self._published.items()
                if now.get(name) != etag and not output.belongs_to(name, self._changed)
            ]


def _kills_driver(strike: Strike) -> bool:
    return isinstance(strike, Kill) and strike.victim == "driver"
