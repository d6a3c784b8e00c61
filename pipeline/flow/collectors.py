"""The sink step: a Ray `Datasink` in front of a few collector actors; every slice has one collector, by its address."""

import logging
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.cluster.cluster import object_store_use
from pipeline.cluster.processors import Processors
from pipeline.errors import CollectorsGoneError
from pipeline.flow.ray_errors import explained
from pipeline.publish.collector import Collector, CollectorState, SinkConfig
from pipeline.workers.activity import Board, Holding, Note, Notify, describe, own_note

logger = logging.getLogger(__name__)

# How long the driver waits for the collectors' answers: at the start of a pass, and when it asks where things are.
_START_TIMEOUT_S = 60.0
_LOOK_TIMEOUT_S = 30.0
_MAX_RESTARTS = 5
_TASK_RETRIES = 2


@dataclass(frozen=True, slots=True)
class _Answer:
    """A collector's state, and which of its lives it comes from: after a restart its receipts count from 0 again."""

    life: str
    state: CollectorState


class CollectorActor:
    """A collector as a Ray actor. Beside the thread that works, one answers, also while a PUT is under way."""

    def __init__(self, config: SinkConfig) -> None:
        self._collector = Collector(config)
        self._life = secrets.token_hex(4)
        self._pass_known = 0
        self._board = Board()
        self._is_closing = False

    def start_pass(self, pass_number: int) -> None:
        """Forgets unfinished slices; from now on only chunks of this pass are taken."""
        self._board.clear()
        self._is_closing = False
        self._learn(pass_number)

    def take(self, table: pa.Table, pass_number: int, holding: Holding) -> None:
        """Takes one chunk; returns when its rows are here or published."""
        if self._is_closing:
            return
        if pass_number > self._pass_known:
            # New, or restarted in the middle of a pass: what it held is lost to this pass, what comes from now on is
            # not. What it has heard of others is of this pass.
            self._learn(pass_number)
        self._board.post(own_note(holding))
        try:
            with explained("sink"):
                self._collector.add(table)
        finally:
            self._board.post(own_note(None))

    def _learn(self, pass_number: int) -> None:
        self._pass_known = pass_number
        self._collector.start_pass(pass_number)

    def drained(self) -> None:
        """Returns when what was asked before is done."""

    @ray.method(concurrency_group="answers")
    def answer(self, receipts_from: int) -> _Answer:
        """Counters so far, with the receipts from an index on."""
        return _Answer(self._life, self._collector.state(receipts_from))

    @ray.method(concurrency_group="answers")
    def post(self, note: Note) -> None:
        """Takes a note of another process."""
        self._board.post(note)

    @ray.method(concurrency_group="answers")
    def notes(self) -> list[Note]:
        """What the processes hold that this collector has heard of; its own work included."""
        return self._board.notes()

    @ray.method(concurrency_group="answers")
    def close(self) -> None:
        """Until another pass no chunk is taken; a slice that is being published will be."""
        self._is_closing = True


class Collectors:
    """The collector actors of one run, seen from the driver."""

    def __init__(self, config: SinkConfig, processors: Processors) -> None:
        # No CPU is reserved: they mostly wait, and on a small machine every CPU counts. A collector that dies comes
        # back empty; the slices it held are run again in the next pass.
        actor: Any = ray.remote(
            **processors.nothing,
            max_restarts=_MAX_RESTARTS,
            max_task_retries=_TASK_RETRIES,
            concurrency_groups={"answers": 1},
        )(CollectorActor)
        num_collectors = processors.num_collectors
        self._start = lambda: actor.remote(config)
        self.actors: list[Any] = [self._start() for _ in range(num_collectors)]
        self._answers = [_Answer("", CollectorState())] * num_collectors
        self._receipts_seen = [0] * num_collectors
        self._silent: set[int] = set()
        self._are_new = True

    def start_pass(self, pass_number: int) -> None:
        """Makes every collector forget unfinished slices and take chunks of this pass only; replaces the dead.

        Raises:
            CollectorsGoneError: one does not answer, such as one that no node is there for.
        """
        if self._are_new:
            # They learn of their first pass by its first chunk. Nobody waits here while their processes start.
            self._are_new = False
            return
        started = [actor.start_pass.remote(pass_number) for actor in self.actors]
        for index, reference in enumerate(started):
            try:
                try:
                    ray.get(reference, timeout=_START_TIMEOUT_S)
                except ray.exceptions.RayActorError as error:
                    logger.warning("collector.replaced index=%d error=%s", index, type(error).__name__)
                    self.actors[index] = self._start()
                    ray.get(self.actors[index].start_pass.remote(pass_number), timeout=_START_TIMEOUT_S)
            except (ray.exceptions.GetTimeoutError, ray.exceptions.RayActorError) as error:
                raise CollectorsGoneError(
                    f"collector {index} did not answer within {_START_TIMEOUT_S:.0f} s of the start of pass "
                    f"{pass_number}: are nodes with processors up (ray status), does the store answer?"
                ) from error

    def poll(self, timeout_s: float) -> list[CollectorState]:
        """The state of every collector, with the receipts that were not seen before; the last known of silent ones."""
        asked = [actor.answer.remote(seen) for actor, seen in zip(self.actors, self._receipts_seen, strict=True)]
        answers = _answers(asked, timeout_s)
        states = []
        for index, answer in enumerate(answers):
            if answer is None:
                if index not in self._silent:
                    logger.warning("collector.silent index=%d", index)
                self._silent.add(index)
                states.append(replace(self._answers[index].state, receipts=()))
                continue
            self._silent.discard(index)
            if answer.life != self._answers[index].life and self._receipts_seen[index]:
                self._receipts_seen[index] = 0  # its receipts come with the next poll
                answer = replace(answer, state=replace(answer.state, receipts=()))
            self._receipts_seen[index] += len(answer.state.receipts)
            self._answers[index] = answer
            states.append(answer.state)
        return states

    def notifier(self) -> Notify:
        """Returns what the processes of the steps send their notes with."""
        return CollectorNotifier(self.actors[0])

    def describe_activity(self) -> str:
        """Returns which steps hold which records, by the notes of living processes, and who does not answer."""
        answers = _answers([actor.notes.remote() for actor in self.actors], _LOOK_TIMEOUT_S)
        silent = [f"collector {index}" for index, notes in enumerate(answers) if notes is None]
        by_node: dict[str | None, list[Note]] = {}
        for note in (note for notes in answers for note in notes or ()):
            by_node.setdefault(note.node, []).append(note)
        living, silent_nodes = _living(by_node)
        return describe(living, silent + silent_nodes, object_store_use())

    def finish(self, timeout_s: float) -> None:
        """Drops unfinished slices; returns when those that are being published are, or the time is over."""
        for actor in self.actors:
            actor.close.remote()
        _answers([actor.drained.remote() for actor in self.actors], timeout_s)

    def stop(self) -> None:
        """Ends the actors."""
        for actor in self.actors:
            ray.kill(actor)


class CollectorNotifier:
    """Sends the notes of a step's process to a collector, and waits for nothing."""

    def __init__(self, collector: Any) -> None:
        self._collector = collector

    def __call__(self, note: Note) -> None:
        """Sends one note. If it is lost, only the description of a run without progress misses it."""
        try:
            self._collector.post.remote(replace(note, node=ray.get_runtime_context().get_node_id()))
        except ray.exceptions.RayError as error:
            logger.debug("note.lost error=%s", error)


def _answers(references: list[Any], timeout_s: float) -> list[Any]:
    """What each call gave; None where it failed or did not end in time."""
    done, _ = ray.wait(references, num_returns=len(references), timeout=timeout_s)
    answers: list[Any] = []
    for reference in references:
        try:
            answers.append(ray.get(reference) if reference in done else None)
        except ray.exceptions.RayError:
            answers.append(None)
    return answers


def _living(by_node: dict[str | None, list[Note]]) -> tuple[list[Note], list[str]]:
    """The notes of processes that are still there, and the nodes that do not say."""
    probe = ray.remote(num_cpus=0, max_retries=1)(_living_pids)
    nodes = [node for node in by_node if node is not None]
    asked = [
        probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            [note.pid for note in by_node[node]]
        )
        for node in nodes
    ]
    living, silent = list(by_node.get(None, ())), []
    for node, pids in zip(nodes, _answers(asked, _LOOK_TIMEOUT_S), strict=True):
        living += [note for note in by_node[node] if pids is None or note.pid in pids]
        silent += [f"node {by_node[node][0].host}"] if pids is None else []
    return living, silent


def _living_pids(pids: list[int]) -> list[int]:
    """On a node: those of the processes that are there."""
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]
