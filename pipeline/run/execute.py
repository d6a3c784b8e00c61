"""The order of a prepared run: join the cluster, run pass after pass, finish with the report."""

import logging
import secrets
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing

from pipeline.account.metrics import RunMetrics
from pipeline.account.progress import Progress
from pipeline.account.report import Report
from pipeline.cluster.cluster import NO_ROOM, joined_cluster
from pipeline.cluster.processors import Processors, divide_processors
from pipeline.config.identity import claim_identity
from pipeline.errors import OutputError
from pipeline.flow.ray_errors import Dropped
from pipeline.flow.steps import Steps, steps_of
from pipeline.output.layout import PLAN_FILE
from pipeline.run.emptying import empty_files, empty_late_files
from pipeline.run.finish import finish, finish_early, finish_without_work
from pipeline.run.ledger import Ledger
from pipeline.run.passes import Passes, check_fatal
from pipeline.run.remaining import missing, refresh
from pipeline.run.run import Run
from pipeline.run.stopper import Ending, Stopper, own_stopper
from pipeline.store.errors import ExistsError, StoreError

logger = logging.getLogger(__name__)


Fill = Callable[[Run, Ledger], None]


def execute(
    run: Run,
    ledger: Ledger,
    on_progress: Callable[[Progress], None],
    steps: Steps | None = None,
    stopper: Stopper | None = None,
    fill: Fill | None = None,
) -> Report:
    """Does the planned work, compares the plan with the output, and writes and returns the report.

    A run with an empty plan writes nothing and only returns a report.

    Args:
        run: facts of the run.
        ledger: findings of the run; this function adds to them.
        on_progress: function that is called with the progress about once a second.
        steps: decode step and infer step; None takes the real ones.
        stopper: handler of the signals that end the run early; if None, the run installs a stopper of its own.
        fill: function that publishes slices whose rows are known already, before anything is read; None for none.

    Raises:
        PipelineError: the work could not begin, or the output cannot be written.
    """
    if run.plan.is_empty:
        return finish_without_work(run, ledger)
    output = run.config.output.folder
    output.sweep_temporaries()
    try:
        claim_identity(output, run.identity, run.older)
        write_plan(run)
        # The run leaves the cluster only after the report is written, because leaving takes a second or two, and Ray
        # kills a job three seconds after the request to stop.
        with ExitStack() as until_closed:
            stopper = stopper or until_closed.enter_context(own_stopper())
            steps = steps or steps_of(run.config.task)
            ending, last_error = _work(run, ledger, on_progress, steps, stopper, until_closed, fill)
            # A run that lost the output to another run writes no report.
            run.lease.check()
            check_fatal(run, ledger)
            run.lease.fence.check()
            return finish(run, ledger, last_error) if ending is None else finish_early(run, ledger, ending)
    except StoreError as error:
        raise OutputError(f"output {output} cannot be written: {error}") from error


def _work(
    run: Run,
    ledger: Ledger,
    on_progress: Callable[[Progress], None],
    steps: Steps,
    stopper: Stopper,
    until_closed: ExitStack,
    fill: Fill | None,
) -> tuple[Ending | None, str | None]:
    """Does all planned work; afterwards neither signals nor `Stopper.stop` interrupt the main thread.

    Returns:
        The ending of a run that ended early, else None; and the last error of the last pass, None without an error.
    """
    dropped: Sequence[Dropped] = []
    try:
        empty_files(run, ledger, run.plan.summary.emptied)
        if run.plan.num_shards and fill is not None:
            fill(run, ledger)
            refresh(run, ledger)
        if next(missing(run.plan, ledger.files), None) is not None:
            processors = _join(run, until_closed)
            ledger.note_processors(processors)
            metrics = until_closed.enter_context(closing(_metrics(run, processors)))

            def report_progress(progress: Progress) -> None:
                metrics.update(progress)
                on_progress(progress)

            dropped = Passes(run, ledger, processors, report_progress, steps, stopper).run()
            refresh(run, ledger)
        if run.plan.num_shards:
            empty_late_files(run, ledger)
        stopper.disarm()
    except KeyboardInterrupt:
        return stopper.ending or Ending("stopped", "the run was told to stop"), None
    for_room = [block.reason for block in dropped if block.for_room]
    if for_room and next(missing(run.plan, ledger.files), None) is not None:
        return Ending("failed", f"{NO_ROOM} ({for_room[-1]})"), None
    return None, dropped[-1].reason if dropped else None


def _join(run: Run, until_closed: ExitStack) -> Processors:
    """Joins the cluster until the stack is closed; returns the division of the cluster's processors."""
    config, output = run.config, run.config.output
    paths = [place.local_path for place in config.input.places if place.local_path is not None]
    marker = output.folder.join(f".node-check-{secrets.token_hex(8)}")
    if marker.local_path is not None:
        marker.put(b"")
        until_closed.callback(marker.delete)
        paths.append(marker.local_path)
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
        "output": run.config.output.folder.shown,
    }
    return RunMetrics(run.run_id, run.started_at, processors.num_actors[1], info)


def write_plan(run: Run) -> None:
    """Writes the run's plan into the run's folder.

    Raises:
        OutputError: an earlier run had the same run ID.
    """
    try:
        run.folder.join(PLAN_FILE).put(run.plan.shards.to_bytes(), if_absent=True)
    except ExistsError as error:
        raise OutputError(f"--run-id {run.run_id} was used before in this output; choose another") from error
