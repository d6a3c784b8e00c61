"""One run, from the listing to the report: plan, passes, close. The only place that knows the order of things."""

import importlib.metadata
import logging
import platform
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.account import Totals, discrepancies
from pipeline.checkpoint import Checkpoint, fetch_checkpoint
from pipeline.cluster import joined_cluster, put_object
from pipeline.collect import CollectorState, Receipt, SinkConfig
from pipeline.config import ClassifyConfig, InferConfig
from pipeline.errors import OutputError
from pipeline.flow import FlowConfig, run_pass
from pipeline.identity import check_identity, claim_identity, classify_identity, identity_digest
from pipeline.layout import PLAN_FILE, REPORT_FILE, RUNS, shard_states
from pipeline.listing import survey_inputs
from pipeline.output import PublishedFile, published_files, write_index
from pipeline.plan import DoneSlice, Plan, PlannedShard, from_parquet, make_plan, to_parquet
from pipeline.preflight import preflight
from pipeline.processors import Processors, divide_processors
from pipeline.read import ReadConfig, check_inputs, count_records
from pipeline.report import Report, Seconds, Status
from pipeline.schema import CLASSIFY_COLUMNS, output_schema
from pipeline.sink import Collectors, SliceDatasink
from pipeline.storage import StoreConfig, delete, list_objects, put, read, sweep_temporaries
from pipeline.store_errors import ExistsError, NotFoundError, StoreError
from pipeline.uris import is_local, join_uri, local_path, name_of

logger = logging.getLogger(__name__)

_POLL_S = 1.0
_REPORTED_PACKAGES = ("ray", "torch", "pyarrow", "pillow", "obstore", "pvtv2-batch")


@dataclass(frozen=True, slots=True)
class Progress:
    """What has arrived at the collectors so far; `total` is None where tars hide how many records they hold."""

    rows: int
    failed: int
    files: int
    total: int | None


@dataclass(slots=True)
class _Run:
    """What one run has found out so far: the facts that the report is made of.

    Attributes:
        published: the output's files by name, those of earlier runs included.
        counters: last state of each collector, receipts apart.
    """

    config: ClassifyConfig
    run_id: str
    started_at: float
    checkpoint: Checkpoint
    identity: dict[str, Any]
    plan: Plan
    published: dict[str, PublishedFile]
    receipts: list[Receipt] = field(default_factory=list)
    counters: list[CollectorState] = field(default_factory=list)
    processors: Processors | None = None
    passes: int = 0
    first_row_at: float | None = None
    last_row_at: float | None = None


def prepare(config: ClassifyConfig, started_at: float) -> _Run:
    """Everything that can go wrong before any work: weights, inputs, output, plan. Writes nothing.

    Args:
        started_at: `time.time()` of the start of the program.

    Raises:
        PipelineError, model.errors.CheckpointError: with a sentence that says what to do.
    """
    output_schema(CLASSIFY_COLUMNS, config.input.keep_columns)
    checkpoint = fetch_checkpoint(config)
    identity = classify_identity(config, checkpoint.loaded, checkpoint.labels)
    survey = survey_inputs(config.input, config.output.uri)
    check_inputs(survey.found, config.input)
    store = config.output.store
    try:
        try:
            check_identity(config.output.uri, store, identity)
            digest = identity_digest(identity)
        except NotFoundError:
            digest = None
        published = published_files(config.output.uri, store, identity=digest)
        if digest is None and published:
            raise OutputError(
                f"{config.output.uri} has output files but no _job.json; restore it, or choose another --output"
            )
        plan = make_plan(
            survey,
            published,
            shard_states(file.file for file in published),
            _earlier_plans(config.output.uri, store),
            config.input,
            config.output.rows_per_file,
            lambda found, at_most: count_records(found, at_most, config.input),
        )
    except StoreError as error:
        raise OutputError(f"output {config.output.uri} cannot be read: {error}") from error
    return _Run(
        config=config,
        run_id=config.run_id or time.strftime("%Y%m%dT%H%M%SZ-", time.gmtime(started_at)) + secrets.token_hex(2),
        started_at=started_at,
        checkpoint=checkpoint,
        identity=identity,
        plan=plan,
        published={file.file: file for file in published},
    )


def execute(run: _Run, on_progress: Callable[[Progress], None]) -> Report:
    """Does the planned work, closes the accounts and writes the report last.

    Raises:
        PipelineError: the work could not be begun, or the output cannot be written.
    """
    if not run.plan.shards:
        return _report(run, "done", [])
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
        return _close(run, status, last_error)
    except StoreError as error:
        raise OutputError(f"output {output} cannot be written: {error}") from error


def _run_passes(run: _Run, on_progress: Callable[[Progress], None]) -> str | None:
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


def _passes_on_cluster(run: _Run, processors: Processors, on_progress: Callable[[Progress], None]) -> str | None:
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
        while todo := _missing(run):
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
            with _Watch(run, collectors, on_progress):
                reasons = run_pass(todo, flow, SliceDatasink(collectors.actors))
            last_error = reasons[-1] if reasons else None
            if fatal := next((state.fatal for state in run.counters if state.fatal), None):
                raise OutputError(f"{fatal}; the rows published so far are whole, the same command continues")
            _refresh(run)
    finally:
        collectors.stop()
    return last_error


class _Watch:
    """Polls the collectors on a thread of its own while a pass runs, and once more at its end."""

    def __init__(self, run: _Run, collectors: Collectors, on_progress: Callable[[Progress], None]) -> None:
        self._run, self._collectors, self._on_progress = run, collectors, on_progress
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._poll_until_ended, name="watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._poll()

    def _poll_until_ended(self) -> None:
        while not self._ended.wait(_POLL_S):
            self._poll()

    def _poll(self) -> None:
        run = self._run
        states = self._collectors.poll()
        if not states:
            return
        run.counters = [replace(state, receipts=()) for state in states]
        run.receipts += [receipt for state in states for receipt in state.receipts]
        first = [state.first_row_at for state in states if state.first_row_at is not None]
        last = [state.last_row_at for state in states if state.last_row_at is not None]
        run.first_row_at = min([*first, run.first_row_at or float("inf")]) if first else run.first_row_at
        run.last_row_at = max([*last, run.last_row_at or 0.0]) if last else run.last_row_at
        counts = [shard.num_records for shard in run.plan.shards]
        done_before = sum(done.last_row - done.first_row + 1 for shard in run.plan.shards for done in shard.done)
        known = [count for count in counts if count is not None]
        self._on_progress(
            Progress(
                rows=sum(state.rows for state in states),
                failed=sum(state.failed for state in states),
                files=len(run.receipts),
                total=sum(known) - done_before if len(known) == len(counts) else None,
            )
        )


def _missing(run: _Run) -> list[PlannedShard]:
    """The planned shards that are not whole, each with the slices it has."""
    states = shard_states(run.published)
    done: dict[str, list[DoneSlice]] = {}
    for file in run.published.values():
        footer = file.footer
        done.setdefault(footer.hash16, []).append(DoneSlice(footer.slice, footer.first_row, footer.last_row))
    return [
        replace(shard, done=tuple(sorted(done.get(shard.hash16, []), key=lambda d: d.slice)))
        for shard in run.plan.shards
        if not (shard.hash16 in states and states[shard.hash16].complete)
    ]


def _refresh(run: _Run) -> None:
    """Brings `run.published` up to what is visible in the output now."""
    known = [*run.published.values(), *(PublishedFile(r.file, r.etag, r.footer) for r in run.receipts)]
    files = published_files(
        run.config.output.uri, run.config.output.store, identity=identity_digest(run.identity), known=known
    )
    run.published = {file.file: file for file in files}


def _close(run: _Run, status: Status, last_error: str | None) -> Report:
    """Compares the plan with what is published, and writes index and report."""
    output, store = run.config.output.uri, run.config.output.store
    _refresh(run)
    planned = [(shard.hash16, shard.num_records) for shard in run.plan.shards]
    problems = []
    if status == "done":
        problems = [f"{shard.shard}: not all of its slices are published" for shard in _missing(run)]
        problems += discrepancies(planned, [file.footer for file in run.published.values()])
        if problems and last_error:
            problems.append(f"the last pass dropped work: {last_error}")
    report = _report(run, "failed" if problems else status, problems)
    write_index(output, store, run.published.values())
    put(join_uri(output, RUNS, run.run_id, REPORT_FILE), report.to_json(), store)
    return report


def _report(run: _Run, status: Status, problems: list[str]) -> Report:
    footers = [file.footer for file in run.published.values()]
    own = sum((footer.totals for footer in footers if footer.run_id == run.run_id), Totals())
    put_s = sum(receipt.put_s for receipt in run.receipts)
    steady = None
    if run.first_row_at is not None and run.last_row_at is not None:
        steady = run.last_row_at - run.first_row_at
    processors = run.processors
    return Report(
        run_id=run.run_id,
        status=status,
        identity=run.identity,
        run=own,
        output=sum((footer.totals for footer in footers), Totals()),
        ignored=run.plan.ignored,
        problems=tuple(problems),
        seconds=Seconds(
            wall=time.time() - run.started_at,
            model_load=run.checkpoint.load_s,
            first_row=None if run.first_row_at is None else run.first_row_at - run.started_at,
            steady=steady,
            steps={**own.seconds, "put": put_s} if run.receipts else own.seconds,
        ),
        actors={}
        if processors is None
        else {"device": processors.device, "min": processors.num_actors[0], "max": processors.num_actors[1]},
        versions=_versions(),
        passes=run.passes,
        replayed_chunks=sum(state.replayed_chunks for state in run.counters),
    )


def _earlier_plans(output: str, store: StoreConfig) -> list[PlannedShard]:
    """The shards of every plan over this output, the oldest first."""
    plans = [info for info in list_objects(join_uri(output, RUNS), store) if name_of(info.uri) == PLAN_FILE]
    return [shard for info in sorted(plans, key=lambda info: info.uri) for shard in from_parquet(read(info.uri, store))]


def _write_plan(run: _Run) -> None:
    uri = join_uri(run.config.output.uri, RUNS, run.run_id, PLAN_FILE)
    try:
        put(uri, to_parquet(run.plan.shards), run.config.output.store, if_absent=True)
    except ExistsError as error:
        raise OutputError(f"--run-id {run.run_id} was used before in this output; choose another") from error


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _REPORTED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def describe_plan(run: _Run) -> dict[str, Any]:
    """What a run would do, in numbers."""
    shards = run.plan.shards
    formats = Counter(shard.format for shard in shards)
    counts = [shard.num_records for shard in shards]
    return {
        "dry_run": True,
        "output": _shown(run.config.output.uri),
        "shards": len(shards),
        "shards_by_format": dict(formats),
        "images": sum(len(shard.members) for shard in shards),
        "images_in_tar_or_parquet": "not counted" if None in counts else 0,
        "bytes": sum(shard.size for shard in shards),
        "carried_over_shards": run.plan.num_carried,
        "complete_shards": run.plan.num_complete,
        "changed_shards": run.plan.num_changed,
        "ignored": run.plan.ignored,
    }


def summarise(run: _Run, report: Report) -> dict[str, Any]:
    """The report's headline, for the last line of stdout."""
    output = run.config.output.uri
    worked = bool(run.plan.shards)
    return {
        "status": report.status,
        "message": report.status if worked else "nothing to do: every row is published",
        "run_id": report.run_id,
        "output": _shown(output),
        "report": _shown(join_uri(output, RUNS, report.run_id, REPORT_FILE)) if worked else None,
        "listed": report.run.listed,
        "ok": report.run.ok,
        "failed": report.run.failed,
        "failed_by_code": dict(report.run.failed_by_code),
        "ignored": report.run.ignored + report.ignored,
        "files": report.run.files,
        "rows_in_output": report.output.listed,
        "seconds": round(report.seconds.wall, 1),
        **report.rates(),
    }


def _shown(uri: str) -> str:
    """A URI as a user would type it."""
    return str(local_path(uri)) if is_local(uri) else uri
