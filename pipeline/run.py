"""The run: passes over what is missing, then the close, with the report last."""

import logging
import secrets
from collections.abc import Callable

from pipeline.close import build_report, close
from pipeline.cluster import joined_cluster, put_object
from pipeline.collect import SinkConfig
from pipeline.config import InferConfig
from pipeline.errors import OutputError
from pipeline.flow import FlowConfig, run_pass
from pipeline.identity import claim_identity, identity_digest
from pipeline.layout import PLAN_FILE, RUNS
from pipeline.plan import to_parquet
from pipeline.preflight import preflight
from pipeline.prepare import Run, missing, refresh
from pipeline.processors import Processors, divide_processors
from pipeline.read import ReadConfig
from pipeline.report import Report, Status
from pipeline.schema import CLASSIFY_COLUMNS, output_schema
from pipeline.sink import Collectors, SliceDatasink
from pipeline.storage import delete, put, sweep_temporaries
from pipeline.store_errors import ExistsError, StoreError
from pipeline.uris import is_local, join_uri, local_path
from pipeline.watch import Progress, Watch

logger = logging.getLogger(__name__)


def execute(run: Run, on_progress: Callable[[Progress], None]) -> Report:
    """Does the planned work, closes the accounts and writes the report last.

    Raises:
        PipelineError: the work could not be begun, or the output cannot be written.
    """
    if not run.plan.shards:
        return build_report(run, "done", [])
    output, store = run.config.output.uri, run.config.output.store
    preflight(output, store)
    sweep_temporaries(output)
    status: Status = "done"
    last_error = None
    try:
        claim_identity(output, store, run.identity)
        _write_plan(run)
        try:
            last_error = _run_passes(run, on_progress)
        except KeyboardInterrupt:
            status = "stopped"
        return close(run, status, last_error)
    except StoreError as error:
        raise OutputError(f"output {output} cannot be written: {error}") from error


def _run_passes(run: Run, on_progress: Callable[[Progress], None]) -> str | None:
    """Runs what is missing, again and again within bounds; returns what the last pass gave up with, if it did."""
    config, output = run.config, run.config.output
    marker = f".node-check-{secrets.token_hex(8)}"
    paths = [local_path(uri) for uri in config.input.uris if is_local(uri)]
    if is_local(output.uri):
        put(join_uri(output.uri, marker), b"", output.store)
        paths.append(local_path(join_uri(output.uri, marker)))
    try:
        with joined_cluster(config.compute, paths) as cluster:
            run.processors = divide_processors(
                cluster.num_cpus, cluster.num_gpus, config.compute.device, config.compute.num_actors
            )
            logger.info(
                "processors.divided cpus=%g gpus=%g: %s", cluster.num_cpus, cluster.num_gpus, run.processors.describe()
            )
            return _passes_on_cluster(run, run.processors, on_progress)
    finally:
        if is_local(output.uri):
            delete(join_uri(output.uri, marker), output.store)


def _passes_on_cluster(run: Run, processors: Processors, on_progress: Callable[[Progress], None]) -> str | None:
    config, output = run.config, run.config.output
    schema = output_schema(CLASSIFY_COLUMNS, config.input.keep_columns)
    sink_config = SinkConfig(
        output=output.uri,
        store=output.store,
        schema=schema,
        identity=identity_digest(run.identity),
        run_id=run.run_id,
    )
    weights = put_object(run.checkpoint.weights)
    collectors = Collectors(sink_config, processors.num_collectors)
    last_error = None
    try:
        while todo := missing(run):
            if run.passes == config.compute.max_passes:
                break
            run.passes += 1
            last_pass = run.passes == config.compute.max_passes
            collectors.start_pass(run.passes)
            logger.info("pass.started number=%d shards=%d last=%s", run.passes, len(todo), last_pass)
            flow = FlowConfig(
                read=ReadConfig(
                    input=config.input,
                    rows_per_file=output.rows_per_file,
                    max_file_bytes=output.max_file_mib * 2**20,
                    row_bytes=256 + 12 * config.top_k,
                    sizes=config.sizes,
                    pass_number=run.passes,
                    last_pass=last_pass,
                ),
                sizes=config.sizes,
                infer=InferConfig(
                    config_json=run.checkpoint.config_json,
                    preprocessor_json=run.checkpoint.preprocessor_json,
                    variant=config.variant,
                    labels=run.checkpoint.labels,
                    top_k=config.top_k,
                    device=processors.device,
                ),
                weights=weights,
                processors=processors,
                careful=last_pass,
            )
            with Watch(run, collectors, on_progress):
                reasons = run_pass(todo, flow, SliceDatasink(collectors.actors))
            last_error = reasons[-1] if reasons else None
            if fatal := next((state.fatal for state in run.counters if state.fatal), None):
                raise OutputError(f"{fatal}; the rows published so far are whole, the same command continues")
            refresh(run)
    finally:
        collectors.stop()
    return last_error


def _write_plan(run: Run) -> None:
    uri = join_uri(run.config.output.uri, RUNS, run.run_id, PLAN_FILE)
    try:
        put(uri, to_parquet(run.plan.shards), run.config.output.store, if_absent=True)
    except ExistsError as error:
        raise OutputError(f"--run-id {run.run_id} was used before in this output; choose another") from error
