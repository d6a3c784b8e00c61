"""The run: passes over what is missing, then the close, with the report last."""

import logging
import secrets
from collections.abc import Callable
from contextlib import ExitStack, closing

from pipeline.account.metrics import RunMetrics
from pipeline.account.progress import Progress
from pipeline.account.report import Report
from pipeline.cluster.cluster import NO_ROOM, joined_cluster
from pipeline.cluster.processors import Processors, divide_processors
from pipeline.config.identity import claim_identity
from pipeline.errors import OutputError
from pipeline.flow.ray_errors import Dropped
from pipeline.flow.steps import NETWORK, Steps
from pipeline.output.layout import PLAN_FILE, RUNS
from pipeline.run.build_report import build_report
from pipeline.run.emptying import empty_files, empty_late_files
from pipeline.run.finish import close, close_early
from pipeline.run.passes import check_fatal, run_passes
from pipeline.run.remaining import missing, refresh
from pipeline.run.state import Run
from pipeline.run.stopper import Ending, Stopper, installed_stopper
from pipeline.store.errors import ExistsError, StoreError
from pipeline.store.storage import delete, put, sweep_temporaries
from pipeline.store.uris import is_local, join_uri, local_path, shown

logger = logging.getLogger(__name__)


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
            check_fatal(run)
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

            dropped = run_passes(run, run.processors, tell, steps, stopper)
            refresh(run)
            empty_late_files(run)
        stopper.close()
    except KeyboardInterrupt:
        return stopper.ending or Ending("stopped", "the run was told to stop"), None
    for_room = [block.reason for block in dropped if block.for_room]
    if for_room and next(missing(run), None) is not None:
        return Ending("failed", f"{NO_ROOM} ({for_room[-1]})"), None
    return None, dropped[-1].reason if dropped else None


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
