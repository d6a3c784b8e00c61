"""The passes of a run: what is missing runs again, within bounds."""

import logging
import threading
from collections.abc import Callable

from pipeline.account.progress import Progress
from pipeline.chunks.chunk import CHUNK_MAX_BYTES, CHUNK_MAX_RECORDS
from pipeline.chunks.sample import num_offered
from pipeline.cluster.capacity import Capacity
from pipeline.cluster.cluster import put_object, wait_until_free
from pipeline.cluster.processors import Processors
from pipeline.errors import CollectorsGoneError, OutputError
from pipeline.flow.collectors import Collectors
from pipeline.flow.datasink import SliceDatasink
from pipeline.flow.ray_errors import Dropped, ignore_advice
from pipeline.flow.run_pass import FlowConfig, run_pass
from pipeline.flow.steps import Steps
from pipeline.plan.sampling import drawn
from pipeline.read.header_sample import planned_work
from pipeline.run.remaining import missing, refresh, waves
from pipeline.run.run_limits import hours_over
from pipeline.run.state import Plan, Run
from pipeline.run.step_settings import infer_config, read_config, sink_config
from pipeline.run.stopper import Ending, Stopper
from pipeline.run.watch import Watch

logger = logging.getLogger(__name__)


# Actors that are told to end finish what they are at.
_FREE_S = 30.0


# Passes in a row that are given up before they publish anything: nodes come and go too fast.
_MOST_FRUITLESS = 10


_SAMPLED_FROM_BYTES = 16 * 2**20


_SAMPLED_SHARDS = 8


_SAMPLED_IMAGES = 64


def check_fatal(run: Run) -> None:
    """Raises what a collector could not go on for; where it lost the right to write, the fence says that."""
    if fatal := next((state.fatal for state in run.counters if state.fatal), None):
        run.lease.fence.check()
        raise OutputError(f"{fatal}; the rows published so far are whole, the same command continues")


def run_passes(
    run: Run, processors: Processors, on_progress: Callable[[Progress], None], steps: Steps, stopper: Stopper
) -> list[Dropped]:
    """Runs what is missing, again and again within bounds; returns what the last pass dropped."""
    config = run.config
    weights = put_object(run.checkpoint.files.weights)
    # Before the sample's thread: it silences warnings now and then, which would undo this.
    ignore_advice()
    _sample_headers(run)
    collectors = Collectors(sink_config(run), processors)
    dropped: list[Dropped] = []
    before, max_passes, num_fruitless = processors, config.compute.max_passes, 0
    try:
        while run.passes < max_passes and next(missing(run), None) is not None:
            run.passes += 1
            last_pass = run.passes == max_passes
            try:
                collectors.start_pass(run.passes)
            except CollectorsGoneError as error:
                stopper.stop(Ending("failed", str(error)))
                raise
            capacity = Capacity(before, processors)
            if run.passes > 1 and (processors := capacity.divided()) != capacity.now:
                logger.info("processors.divided again: %s", processors.describe())
                run.processors, capacity = processors, Capacity(before, processors)
            logger.info("pass.started number=%d last=%s", run.passes, last_pass)
            flow = FlowConfig(
                read=read_config(run, last_pass=last_pass),
                sizes=config.sizes,
                infer=infer_config(run, processors.device),
                weights=weights,
                network=run.checkpoint.network,
                processors=processors,
                careful=last_pass,
                tell=collectors.teller(),
                steps=steps,
                thumbnails=num_offered(config.thumbnails, _least_chunks(run.plan)),
            )
            ends, num_published = (hours_over(run), _give_up_pass(capacity.regained)), len(run.receipts)
            try:
                quiet = (_give_up_pass(capacity.lost),)
                with Watch(run, collectors, on_progress, stopper, stop_if=ends, stop_if_quiet=quiet):
                    dropped = [
                        block
                        for wave in waves(missing(run))
                        for block in run_pass(wave, flow, SliceDatasink(collectors.actors), run.take_operators)
                    ]
            except KeyboardInterrupt:
                # For the cluster's sake and not for the run's: that pass does not count.
                stopper.reopen()
                dropped, max_passes, is_given_up = [], max_passes + 1, True
            else:
                is_given_up = False
            num_fruitless = 0 if len(run.receipts) > num_published else num_fruitless + is_given_up
            if num_fruitless == _MOST_FRUITLESS:
                why = f"the cluster changed {num_fruitless} times in a row before anything was published"
                stopper.stop(Ending("stalled", why))
            if is_given_up and not wait_until_free(capacity.divided().fits, _FREE_S):
                logger.warning("actors.linger: those of the last pass have not ended, and the next may wait for them")
            check_fatal(run)
            refresh(run)
    finally:
        collectors.stop()
    return dropped


def _give_up_pass(reason: Callable[[], str | None]) -> Callable[[], Ending | None]:
    """Turns a reason to give up a pass into the ending of that pass alone."""

    def check() -> Ending | None:
        why = reason()
        return None if why is None else Ending("stalled", why, is_again=True)

    return check


def _sample_headers(run: Run) -> None:
    """Finds out beside the run how much there is to do; one that is small is over before that matters."""
    if run.plan.bytes < _SAMPLED_FROM_BYTES:
        return
    shards = drawn(run.plan.rows, _SAMPLED_SHARDS)

    def sample() -> None:
        work = planned_work(
            shards,
            _SAMPLED_IMAGES,
            plan_bytes=run.plan.bytes,
            config=run.config.input,
            network=run.checkpoint.network,
            sizes=run.config.sizes,
        )
        if work is not None and work.macs:
            run.planned_macs = work.macs
            logger.info("work.sampled images=%d gmac=%.0f", work.images_sampled, work.macs / 1e9)

    threading.Thread(target=sample, name="sample", daemon=True).start()


def _least_chunks(plan: Plan) -> int:
    """The fewest chunks that the plan's images can be read as; about that many, where tars hide how many there are."""
    hidden = plan.bytes // CHUNK_MAX_BYTES if plan.uncounted else 0
    return max(plan.by_format.total(), plan.num_todo // CHUNK_MAX_RECORDS, hidden)
