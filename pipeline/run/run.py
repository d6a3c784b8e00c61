"""The run: passes over what is missing, then the close, with the report last."""

import logging
import secrets
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing

from pipeline.account.metrics import RunMetrics
from pipeline.account.progress import Progress
from pipeline.account.report import Report
from pipeline.chunks.sample import num_offered
from pipeline.cluster.capacity import Room
from pipeline.cluster.cluster import NO_ROOM, joined_cluster, put_object, wait_until_free
from pipeline.cluster.processors import Processors, divide_processors
from pipeline.errors import CollectorsGoneError, OutputError
from pipeline.flow.collectors import Collectors, SliceDatasink
from pipeline.flow.run_pass import Dropped, FlowConfig, ignore_advice, run_pass
from pipeline.flow.steps import NETWORK, Steps
from pipeline.output.layout import PLAN_FILE, RUNS
from pipeline.plan.sampling import drawn
from pipeline.read.header_sample import planned_work
from pipeline.read.read_shard import ReadConfig
from pipeline.run.build_report import build_report
from pipeline.run.emptying import empty_files, empty_late_files
from pipeline.run.finish import close, close_early
from pipeline.run.prepare import Plan, Run, sink_config
from pipeline.run.remaining import missing, refresh, waves
from pipeline.run.run_limits import hours_over
from pipeline.run.stopper import Ending, Stopper, installed_stopper
from pipeline.run.watch import Watch
from pipeline.settings.identity import claim_identity
from pipeline.settings.job_config import CHUNK_MAX_BYTES, CHUNK_MAX_RECORDS, InferConfig
from pipeline.store.errors import ExistsError, StoreError
from pipeline.store.storage import delete, put, sweep_temporaries
from pipeline.store.uris import is_local, join_uri, local_path, shown

logger = logging.getLogger(__name__)

# Actors that are told to end finish what they are at.
_FREE_S = 30.0
# Passes in a row that are given up before they publish anything: nodes come and go too fast.
_MOST_FRUITLESS = 10
_SAMPLED_FROM_BYTES = 16 * 2**20
_SAMPLED_SHARDS = 8
_SAMPLED_IMAGES = 64


def execute(run: Run, on_progress: Callable[[Progress], None], steps: Steps = NETWORK) -> Report:
    """Does the planned work, closes the accounts and writes the report last.

    Args:
        steps: what decodes and what infers.

    Raises:
        PipelineError: the work could not be begun, or the output cannot be written.
    """
    if run.plan.is_empty:
        return build_report(run, "done", [])
    output, store = run.config.output.uri, run.config.output.store
    sweep_temporaries(output)
    try:
        claim_identity(output, store, run.identity)
        write_plan(run)
        # The cluster is left when the report is written: that takes a second or two of the three that Ray leaves a job
        # which it stops.
        with ExitStack() as until_closed, installed_stopper() as stopper:
            ending, last_error = _work(run, on_progress, steps, stopper, until_closed)
            # Whoever lost the output writes no report either.
            run.lease.check()
            _check_fatal(run)
            run.lease.fence.check()
            return close(run, last_error) if ending is None else close_early(run, ending)
    except StoreError as error:
        raise OutputError(f"output {output} cannot be written: {error}") from error


def _work(
    run: Run, on_progress: Callable[[Progress], None], steps: Steps, stopper: Stopper, until_closed: ExitStack
) -> tuple[Ending | None, str | None]:
    """Does all that is planned; returns why it was ended early, if it was, and what the last pass gave up with.

    Nothing interrupts the main thread after it.
    """
    dropped: list[Dropped] = []
    try:
        empty_files(run, run.plan.summary.emptied)
        if run.plan.by_format:
            run.processors = _join(run, until_closed)
            metrics = until_closed.enter_context(closing(_metrics(run, run.processors)))

            def tell(progress: Progress) -> None:
                metrics.update(progress)
                on_progress(progress)

            dropped = _run_passes(run, run.processors, tell, steps, stopper)
            refresh(run)
            empty_late_files(run)
        stopper.close()
    except KeyboardInterrupt:
        return stopper.ending or Ending("stopped", "the run was told to stop"), None
    for_room = [block.reason for block in dropped if block.for_room]
    if for_room and next(missing(run), None) is not None:
        return Ending("failed", f"{NO_ROOM} ({for_room[-1]})"), None
    return None, dropped[-1].reason if dropped else None


def _check_fatal(run: Run) -> None:
    """Raises what a collector could not go on for; where it lost the right to write, the fence says that."""
    if fatal := next((state.fatal for state in run.counters if state.fatal), None):
        run.lease.fence.check()
        raise OutputError(f"{fatal}; the rows published so far are whole, the same command continues")


def _join(run: Run, until_closed: ExitStack) -> Processors:
    """Joins the cluster until the stack is closed; returns how its processors are divided."""
    config, output = run.config, run.config.output
    paths = [local_path(uri) for uri in config.input.uris if is_local(uri)]
    if is_local(output.uri):
        marker = join_uri(output.uri, f".node-check-{secrets.token_hex(8)}")
        put(marker, b"", output.store)
        until_closed.callback(delete, marker, output.store)
        paths.append(local_path(marker))
    cluster = until_closed.enter_context(joined_cluster(config.compute, paths))
    processors = divide_processors(
        cluster.num_cpus, cluster.num_gpus, config.compute.device, config.compute.num_actors, cluster.idle_nodes
    )
    logger.info("processors.divided cpus=%g gpus=%g: %s", cluster.num_cpus, cluster.num_gpus, processors.describe())
    return processors


def _metrics(run: Run, processors: Processors) -> RunMetrics:
    info = {
        "kind": run.identity["job"],
        "weights_sha256": run.identity["weights_sha256"],
        "precision": run.identity["precision"],
        "device": processors.device,
        "output": shown(run.config.output.uri),
    }
    return RunMetrics(run.run_id, run.started_at, processors.num_actors[1], info)


def _run_passes(
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
            room = Room(before, processors)
            if run.passes > 1 and (processors := room.divided()) != room.now:
                logger.info("processors.divided again: %s", processors.describe())
                run.processors, room = processors, Room(before, processors)
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
            ends, num_published = (hours_over(run), room.is_back), len(run.receipts)
            try:
                with Watch(run, collectors, on_progress, stopper, stop_if=ends, stop_if_quiet=(room.is_gone,)):
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
            if is_given_up and not wait_until_free(room.divided().fits, _FREE_S):
                logger.warning("actors.linger: those of the last pass have not ended, and the next may wait for them")
            _check_fatal(run)
            refresh(run)
    finally:
        collectors.stop()
    return dropped


def _sample_headers(run: Run) -> None:
    """Finds out beside the run how much there is to do; one that is small is over before that matters."""
    if run.plan.bytes < _SAMPLED_FROM_BYTES:
        return
    shards = drawn(run.plan.rows, _SAMPLED_SHARDS)

    def sample() -> None:
        work = planned_work(run, shards, _SAMPLED_IMAGES)
        if work is not None and work.macs:
            run.planned_macs = work.macs
            logger.info("work.sampled images=%d gmac=%.0f", work.images_sampled, work.macs / 1e9)

    threading.Thread(target=sample, name="sample", daemon=True).start()


def _least_chunks(plan: Plan) -> int:
    """The fewest chunks that the plan's images can be read as; about that many, where tars hide how many there are."""
    hidden = plan.bytes // CHUNK_MAX_BYTES if plan.uncounted else 0
    return max(plan.by_format.total(), plan.num_todo // CHUNK_MAX_RECORDS, hidden)


def read_config(run: Run, *, last_pass: bool) -> ReadConfig:
    """What the read step of the run's current pass needs besides the plan row."""
    config, output = run.config, run.config.output
    return ReadConfig(
        input=config.input,
        rows_per_file=output.rows_per_file,
        max_file_bytes=output.max_file_mib * 2**20,
        task=config.task,
        network=run.checkpoint.network,
        sizes=config.sizes,
        pass_number=run.passes,
        last_pass=last_pass,
    )


def infer_config(run: Run, device: str) -> InferConfig:
    """What the infer step needs besides the weights."""
    return InferConfig(
        config_json=run.checkpoint.files.config_json,
        preprocessor_json=run.checkpoint.files.preprocessor_json,
        variant=run.config.variant,
        labels=run.checkpoint.labels,
        task=run.config.task,
        device=device,
        precision=run.identity["precision"],
    )


def write_plan(run: Run) -> None:
    """Writes the run's plan into its folder.

    Raises:
        OutputError: another run has had the same name.
    """
    uri = join_uri(run.config.output.uri, RUNS, run.run_id, PLAN_FILE)
    try:
        put(uri, run.plan.rows.to_bytes(), run.config.output.store, if_absent=True)
    except ExistsError as error:
        raise OutputError(f"--run-id {run.run_id} was used before in this output; choose another") from error
