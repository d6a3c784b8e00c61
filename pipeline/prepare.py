"""What a run sets out to do: everything that can be wrong is found here, before any work; nothing is written."""

import logging
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.checkpoint import Checkpoint, fetch_checkpoint
from pipeline.collect import CollectorState, Receipt
from pipeline.config import ClassifyConfig
from pipeline.errors import OutputError
from pipeline.identity import check_identity, classify_identity, identity_digest
from pipeline.layout import PLAN_FILE, RUNS, shard_states
from pipeline.listing import survey_inputs
from pipeline.output import PublishedFile, published_files
from pipeline.plan import DoneSlice, Plan, PlannedShard, from_parquet, make_plan
from pipeline.processors import Processors
from pipeline.read import check_inputs, count_records
from pipeline.schema import CLASSIFY_COLUMNS, output_schema
from pipeline.storage import StoreConfig, list_objects, read
from pipeline.store_errors import NotFoundError, StoreError
from pipeline.uris import join_uri, name_of, shown

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Run:
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


def prepare(config: ClassifyConfig, started_at: float) -> Run:
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
    if plan.num_changed:
        logger.warning(
            "sources.changed shards=%d; their rows stay those of the version that was read", plan.num_changed
        )
    return Run(
        config=config,
        run_id=config.run_id or time.strftime("%Y%m%dT%H%M%SZ-", time.gmtime(started_at)) + secrets.token_hex(2),
        started_at=started_at,
        checkpoint=checkpoint,
        identity=identity,
        plan=plan,
        published={file.file: file for file in published},
    )


def describe_plan(run: Run) -> dict[str, Any]:
    """What a run would do, in numbers."""
    shards = run.plan.shards
    formats = Counter(shard.format for shard in shards)
    packed = [shard.num_records for shard in shards if shard.format != "files"]
    return {
        "dry_run": True,
        "output": shown(run.config.output.uri),
        "shards": len(shards),
        "shards_by_format": dict(formats),
        "images": sum(len(shard.members) for shard in shards),
        "images_in_tar_or_parquet": "not counted" if None in packed else sum(n for n in packed if n),
        "bytes": sum(shard.size for shard in shards),
        "carried_over_shards": run.plan.num_carried,
        "complete_shards": run.plan.num_complete,
        "changed_shards": run.plan.num_changed,
        "ignored": run.plan.ignored,
    }


def _earlier_plans(output: str, store: StoreConfig) -> list[PlannedShard]:
    """The shards of every plan over this output, the oldest first."""
    plans = [info for info in list_objects(join_uri(output, RUNS), store) if name_of(info.uri) == PLAN_FILE]
    return [shard for info in sorted(plans, key=lambda info: info.uri) for shard in from_parquet(read(info.uri, store))]


def missing(run: Run) -> list[PlannedShard]:
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


def refresh(run: Run) -> None:
    """Brings `run.published` up to what is visible in the output now."""
    known = [*run.published.values(), *(PublishedFile(r.file, r.etag, r.footer) for r in run.receipts)]
    files = published_files(
        run.config.output.uri, run.config.output.store, identity=identity_digest(run.identity), known=known
    )
    run.published = {file.file: file for file in files}
