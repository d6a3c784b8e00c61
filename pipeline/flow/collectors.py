"""The collector actors behind the sink. The shard and number of a slice decide which collector gathers the slice."""

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

# Seconds that the driver waits for collectors: at the start of a pass, and for their notes about processes.
_START_TIMEOUT_S = 60.0
_LOOK_TIMEOUT_S = 30.0
_MAX_RESTARTS = 5
_TASK_RETRIES = 2


@dataclass(frozen=True, slots=True)
class _Answer:
    """The answer of a collector to the driver's poll.

    Attributes:
        life: Random name of the actor's process. A new name shows that the actor was restarted, and that its receipts
            are counted from 0 again.
        state: Counters of the collector, and receipts of its published slices.
    """

    life: str
    state: CollectorState


class CollectorActor:
    """A collector as a Ray actor. One thread gathers and publishes; another answers, even while a PUT is under way."""

    def __init__(self, config: SinkConfig) -> None:
        self._collector = Collector(config)
        self._life = secrets.token_hex(4)
        self._pass_known = 0
        self._board = Board()
        self._is_closing = False

    def start_pass(self, pass_number: int) -> None:
        """Drops unfinished slices, and from now on takes only chunks of this pass."""
        self._board.clear()
        self._is_closing = False
        self._learn(pass_number)

    def take(self, table: pa.Table, pass_number: int, holding: Holding) -> None:
        """Takes one chunk; returns when the collector holds or has published the chunk's rows.

        A closed collector drops the chunk.
        """
        if self._is_closing:
            return
        if pass_number > self._pass_known:
            # The actor is new, or was restarted in the middle of the pass. This pass has lost the chunks that the actor
            # held before, but not the chunks that come from now on. All notes on the board belong to this pass.
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
        """Does nothing; when this call has returned, all earlier calls have ended."""

    @ray.method(concurrency_group="answers")
    def answer(self, receipts_from: int) -> _Answer:
        """Returns the counters so far, and the receipts from index `receipts_from` on."""
        return _Answer(self._life, self._collector.state(receipts_from))

    @ray.method(concurrency_group="answers")
    def post(self, note: Note) -> None:
        """Puts a note of another process on the board."""
        self._board.post(note)

    @ray.method(concurrency_group="answers")
    def notes(self) -> list[Note]:
        """Returns the last note of each process that is at work, including this process."""
        return self._board.notes()

    @ray.method(concurrency_group="answers")
    def close(self) -> None:
        """Makes the collector drop new chunks until the next pass; a slice that is being published is finished."""
        self._is_closing = True


class Collectors:
    """The collector actors of one run: starts, polls and ends them from the driver."""

    def __init__(self, config: SinkConfig, processors: Processors) -> None:
        # Collectors reserve no CPU: they mostly wait, and on a small machine every CPU counts. A collector that dies
        # is restarted without rows; the slices that the collector held run again in the next pass.
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
        """Makes every collector drop unfinished slices and take only chunks of this pass; replaces dead collectors.

        Raises:
            CollectorsGoneError: a collector does not answer, for example because the cluster has no node for it.
        """
        if self._are_new:
            # New collectors learn the number of the first pass from a chunk, so the driver need not wait for them here.
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
        """Returns the state of every collector, with the receipts that are new since the last poll.

        For a collector that does not answer in time, the last known state is returned, without receipts.
        """
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
                self._receipts_seen[index] = 0  # The next poll brings the receipts of the new life.
                answer = replace(answer, state=replace(answer.state, receipts=()))
            self._receipts_seen[index] += len(answer.state.receipts)
            self._answers[index] = answer
            states.append(answer.state)
        return states

    def notifier(self) -> Notify:
        """Returns the function with which the processes of the steps send their notes."""
        return CollectorNotifier(self.actors[0])

    def describe_activity(self) -> str:
        """Returns a sentence about the work of living processes, and about collectors and nodes that do not answer."""
        answers = _answers([actor.notes.remote() for actor in self.actors], _LOOK_TIMEOUT_S)
        silent = [f"collector {index}" for index, notes in enumerate(answers) if notes is None]
        by_node: dict[str | None, list[Note]] = {}
        for note in (note for notes in answers for note in notes or ()):
            by_node.setdefault(note.node, []).append(note)
        living, silent_nodes = _living(by_node)
        return describe(living, silent + silent_nodes, object_store_use())

    def finish(self, timeout_s: float) -> None:
        """Closes the collectors; returns when slices that are being published are finished, or after the timeout."""
        for actor in self.actors:
            actor.close.remote()
        _answers([actor.drained.remote() for actor in self.actors], timeout_s)

    def stop(self) -> None:
        """Kills the collector actors."""
        for actor in self.actors:
            ray.kill(actor)


class CollectorNotifier:
    """Sends the notes of a step's process to a collector, without waiting for an answer."""

    def __init__(self, collector: Any) -> None:
        self._collector = collector

    def __call__(self, note: Note) -> None:
        """Sends one note. A lost note is missing only in the description of a run without progress."""
        try:
            self._collector.post.remote(replace(note, node=ray.get_runtime_context().get_node_id()))
        except ray.exceptions.RayError as error:
            logger.debug("note.lost error=%s", error)


def _answers(references: list[Any], timeout_s: float) -> list[Any]:
    """Returns the result of each call; None for a call that failed or did not end in time."""
    done, _ = ray.wait(references, num_returns=len(references), timeout=timeout_s)
    answers: list[Any] = []
    for reference in references:
        try:
            answers.append(ray.get(reference) if reference in done else None)
        except ray.exceptions.RayError:
            answers.append(None)
    return answers


def _living(by_node: dict[str | None, list[Note]]) -> tuple[list[Note], list[str]]:
    """Returns the notes without the notes of ended processes, and the names of nodes that do not answer."""
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
    """Returns the ids of the given processes that exist on the node where this function runs."""
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]
