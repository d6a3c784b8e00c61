"""The passes of a run: missing work runs again, in a bounded number of passes.

a pass ran to its end, even if Ray dropped blocks    ->  counts as one of the `max_passes`
a pass was given up, because the cluster changed     ->  does not count; the run ends after ten such passes in a row
                                                         that published no slice
the run was ended early                              ->  KeyboardInterrupt
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.account.progress import Progress
from pipeline.chunks.chunk import CHUNK_MAX_BYTES, CHUNK_MAX_RECORDS
from pipeline.chunks.sample import num_offered
from pipeline.cluster.capacity import Capacity
from pipeline.cluster.cluster import put_object, wait_until_free
from pipeline.cluster.processors import Processors
from pipeline.errors import CollectorsGoneError, OutputError
from pipeline.flow.collectors import Collectors
from pipeline.flow.config import FlowConfig
from pipeline.flow.datasink import SliceDatasink
from pipeline.flow.ray_errors import Dropped, ignore_advice
from pipeline.flow.run_pass import run_pass
from pipeline.flow.steps import Steps
from pipeline.plan.plan import Plan
from pipeline.run.ledger import Ledger
from pipeline.run.remaining import missing, refresh, waves
from pipeline.run.run import Run
from pipeline.run.run_limits import hours_over
from pipeline.run.step_settings import infer_config, read_config, sink_config
from pipeline.run.stopper import Ending, Stopper
from pipeline.run.watch import Watch
from pipeline.run.work_sample import sample_work

logger = logging.getLogger(__name__)

# Seconds to wait for the actors of a pass that was given up: they finish their current chunk before they end.
_FREE_S = 30.0
# The run ends after this many passes in a row that were given up and published no slice: nodes come and go too fast.
_MOST_FRUITLESS = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one pass.

    Attributes:
        num_published: slices that the pass published.
        dropped: blocks that Ray dropped; empty if Ray dropped no block, or if the pass was given up.
        is_given_up: True if the pass was ended because the cluster lost or regained nodes.
    """

    num_published: int
    dropped: Sequence[Dropped] = ()
    is_given_up: bool = False


class Passes:
    """The passes of one run, which all use the same collectors."""

    def __init__(
        self,
        run: Run,
        ledger: Ledger,
        processors: Processors,
        on_progress: Callable[[Progress], None],
        steps: Steps,
        stopper: Stopper,
    ) -> None:
        """Starts the collectors.

        Args:
            processors: division of the cluster's processors at the start of the run.
            on_progress: function that is called with the progress about once a second.
            steps: decode step and infer step.
            stopper: handler that ends the run or one pass early.
        """
        self._run, self._ledger, self._on_progress = run, ledger, on_progress
        self._steps, self._stopper = steps, stopper
        self._weights = put_object(run.checkpoint.files.weights)
        # This call comes before `sample_work` starts a thread. That thread silences warnings for moments, and then
        # restores the earlier filters, which would undo the call.
        ignore_advice()
        sample_work(run, ledger)
        self._first_processors = processors
        self._capacity = Capacity(processors, processors)
        self._collectors = Collectors(sink_config(run), processors)
        self._num_given_up = self._num_fruitless = 0

    def run(self) -> Sequence[Dropped]:
        """Runs pass after pass until no work is missing or `max_passes` are used up, then ends the collectors.

        Returns:
            The blocks that the last pass dropped.

        Raises:
            KeyboardInterrupt: the run was ended early; the stopper holds the reason.
            OutputError: a collector cannot publish any more.
        """
        dropped: Sequence[Dropped] = ()
        try:
            while self._num_left() and self._is_work_missing():
                outcome = self.one_pass()
                dropped = outcome.dropped
                self._count_fruitless(outcome)
                if outcome.is_given_up:
                    self._num_given_up += 1
                    self._wait_for_actors()
                check_fatal(self._run, self._ledger)
                refresh(self._run, self._ledger)
        finally:
            self._collectors.stop()
        return dropped

    def one_pass(self) -> Outcome:
        """Runs all missing work once, as one pass; returns the outcome."""
        is_last = self._num_left() == 1
        number = self._ledger.begin_pass()
        self._start_collectors(number)
        self._divide(number)
        logger.info("pass.started number=%d last=%s", number, is_last)
        flow = self._flow(number, is_last)
        num_before = len(self._ledger.receipts)
        dropped: list[Dropped] = []
        try:
            with self._watch():
                for wave in waves(missing(self._run.plan, self._ledger.files)):
                    sink = SliceDatasink(self._collectors.actors)
                    dropped += run_pass(wave, flow, sink, self._ledger.take_operators)
        except KeyboardInterrupt:
            self._stopper.rearm()  # raises again if the run was ended, not only the pass
            return Outcome(len(self._ledger.receipts) - num_before, is_given_up=True)
        return Outcome(len(self._ledger.receipts) - num_before, dropped)

    def _num_left(self) -> int:
        """Returns how many passes may still begin. Passes that were given up do not count."""
        return self._run.config.compute.max_passes - (self._ledger.num_passes - self._num_given_up)

    def _is_work_missing(self) -> bool:
        return next(missing(self._run.plan, self._ledger.files), None) is not None

    def _start_collectors(self, number: int) -> None:
        try:
            self._collectors.start_pass(number)
        except CollectorsGoneError as error:
            self._stopper.stop(Ending("failed", str(error)))
            raise

    def _divide(self, number: int) -> None:
        """Divides the processors that the cluster has now among the steps, from the second pass on."""
        self._capacity = Capacity(self._first_processors, self._capacity.now)
        if number > 1 and (processors := self._capacity.divided()) != self._capacity.now:
            logger.info("processors.divided again: %s", processors.describe())
            self._ledger.note_processors(processors)
            self._capacity = Capacity(self._first_processors, processors)

    def _flow(self, number: int, is_last: bool) -> FlowConfig:
        run, processors = self._run, self._capacity.now
        return FlowConfig(
            read=read_config(run, number, last_pass=is_last),
            sizes=run.config.sizes,
            infer=infer_config(run, processors.device),
            weights=self._weights,
            network=run.checkpoint.network,
            processors=processors,
            careful=is_last,
            notify=self._collectors.notifier(),
            steps=self._steps,
            thumbnails=num_offered(run.config.thumbnails, _least_chunks(run.plan)),
        )

    def _watch(self) -> Watch:
        run = self._run
        return Watch(
            run.plan,
            self._ledger,
            self._collectors,
            self._on_progress,
            self._stopper,
            run.config.compute.no_progress_timeout_s,
            stop_if=(hours_over(run), _give_up_pass(self._capacity.regained)),
            stop_if_quiet=(_give_up_pass(self._capacity.lost),),
        )

    def _count_fruitless(self, outcome: Outcome) -> None:
        """Ends the run if too many passes in a row were given up before they published a slice."""
        if outcome.num_published:
            self._num_fruitless = 0
        elif outcome.is_given_up:
            self._num_fruitless += 1
        if self._num_fruitless == _MOST_FRUITLESS:
            why = f"the cluster changed {self._num_fruitless} times in a row before anything was published"
            self._stopper.stop(Ending("stalled", why))

    def _wait_for_actors(self) -> None:
        """Waits until the actors of a pass that was given up have ended."""
        if not wait_until_free(self._capacity.divided().fits, _FREE_S):
            logger.warning("actors.linger: actors of the last pass have not ended, and the next pass may wait for them")


def check_fatal(run: Run, ledger: Ledger) -> None:
    """Raises an error if a collector cannot publish any more.

    Raises:
        LeaseLostError: the run lost its right to write.
        OutputError: the output cannot be written for another reason.
    """
    if ledger.fatal is not None:
        run.lease.fence.check()
        raise OutputError(f"{ledger.fatal}; the rows published so far are whole, the same command continues")


def _give_up_pass(reason: Callable[[], str | None]) -> Callable[[], Ending | None]:
    """Returns a function that returns the ending of the pass if `reason` returns a reason to end it, else None."""

    def check() -> Ending | None:
        why = reason()
        return None if why is None else Ending("stalled", why, is_pass_only=True)

    return check


def _least_chunks(plan: Plan) -> int:
    """Returns a lower bound for the number of chunks of the plan.

    If the images of some shards are not counted, the bound is an estimate from the bytes of the plan.
    """
    hidden = plan.num_bytes // CHUNK_MAX_BYTES if plan.num_uncounted else 0
    return max(plan.num_shards, plan.num_images // CHUNK_MAX_RECORDS, hidden)
