"""What a run sets out to do: everything that can be wrong is found here, before any work.

Nothing is written but the lease, and that only when weights, inputs and identity were found right. The output is listed
after that: from then on nobody else changes it.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, BinaryIO

from model.checkpoints.hub import is_hub
from pipeline.chunks.columns import output_schema
from pipeline.config.checkpoint import Checkpoint, fetch_checkpoint
from pipeline.config.identity import check_identity, identity_digest, job_identity, stored_setting
from pipeline.config.job_config import JobConfig
from pipeline.config.precision import choose_precision
from pipeline.errors import OutputError
from pipeline.inputs.listing import Found, Survey
from pipeline.lease.lease import Lease
from pipeline.output.layout import PLAN_FILE, RUNS, new_run_id
from pipeline.output.published import PublishedFile, published_files, read_output_rows
from pipeline.plan.plan_file import OwnGroups, PlanFile, planned_objects, read_plan
from pipeline.plan.planned_shard import PlannedShard
from pipeline.plan.planner import Planner, PlanOptions, PlanSummary
from pipeline.read.input_checks import check_permission, checked_inputs, count_records
from pipeline.run.state import Plan, Run
from pipeline.store.errors import NotFoundError, StoreError
from pipeline.store.object_info import ObjectInfo
from pipeline.store.preflight import preflight
from pipeline.store.storage import StoreConfig, list_objects, open_reader
from pipeline.store.uris import join_uri, name_of

logger = logging.getLogger(__name__)


def prepare(config: JobConfig, started_at: float, lease: Lease) -> Run:
    """Everything that can go wrong before any work: weights, inputs, output, plan.

    Args:
        started_at: `time.time()` of the start of the program.
        lease: taken here, unless it is a dry run.

    Raises:
        PipelineError, model.errors.CheckpointError: with a sentence that says what to do.
    """
    output, store = config.output.uri, config.output.store
    # `org/name@commit` of the weights that the output was made with so far.
    pinned = stored_setting(output, store, "weights_revision") if is_hub(config.weights) else None
    stored = stored_setting(output, store, "precision") if config.precision == "auto" else None
    precision, reason = choose_precision(config.precision, stored, config.compute.device)
    logger.info("precision.chosen precision=%s reason=%r", precision, reason)
    checkpoint = fetch_checkpoint(config, pinned)
    output_schema(config.task.columns(checkpoint.network), config.input.keep_columns)
    identity = job_identity(config, checkpoint, precision)
    return prepare_with(config, started_at, lease, checkpoint, identity)


def prepare_with(
    config: JobConfig, started_at: float, lease: Lease, checkpoint: Checkpoint, identity: dict[str, Any]
) -> Run:
    """The same for a checkpoint that was read already."""
    listing_began = time.monotonic()
    survey = Survey(config.input, config.output.uri)
    listed = checked_inputs(survey, config.input)
    output, store = config.output.uri, config.output.store
    try:
        _stored_digest(output, store, identity)
        # An input that is missing or empty is found with the first object.
        first = list(islice(listed, 1))
        if not config.dry_run:
            # The lease rests on the conditions that this tries.
            preflight(output, store)
            lease.take(config.output.wait_for_lease_s)
        # Again: whoever had the lease until now may have been the first to write.
        digest = _stored_digest(output, store, identity)
        published = published_files(output, store, identity=digest)
        if digest is None and published:
            raise OutputError(f"{output} has output files but no _job.json; restore it, or choose another --output")
        plan = _make_plan(config, chain(first, listed), published)
        plan.ignored = survey.ignored
        # Later, one object that may not be read must not keep the others, and what is kept of them, waiting.
        if not published:
            check_permission(plan.rows, config.input)
    except StoreError as error:
        raise OutputError(f"output {output} cannot be read: {error}") from error
    return Run(
        config=config,
        run_id=config.run_id or new_run_id(started_at),
        started_at=started_at,
        checkpoint=checkpoint,
        identity=identity,
        plan=plan,
        published={file.file: file for file in published},
        lease=lease,
        listing_s=time.monotonic() - listing_began,
    )


def _stored_digest(output: str, store: StoreConfig, identity: dict[str, Any]) -> str | None:
    """Digest of the identity, which is that of the output; None if the output has none yet."""
    try:
        check_identity(output, store, identity)
    except NotFoundError:
        return None
    return identity_digest(identity)


def _make_plan(config: JobConfig, found: Iterable[Found], published: list[PublishedFile]) -> Plan:
    output, store = config.output.uri, config.output.store
    earlier = _earlier_plans(output, store)
    planner = Planner(
        found,
        published,
        OwnGroups(_opened(earlier, store)).by_plan(),
        config.input,
        PlanOptions(
            rows_per_file=config.output.rows_per_file,
            prune=config.output.prune,
            retry_codes=config.output.retry_failed,
            since_s=config.bounds.since_s,
            max_images=config.bounds.max_images,
        ),
        lambda found, at_most: count_records(found, at_most, config.input),
        lambda file: read_output_rows(file, output, store),
    )
    if config.input.limit is not None:
        planner.allot(shard for plan in _opened(earlier, store) for shard in read_plan(plan))
    if config.bounds.since_s is not None:
        planner.recall(planned_objects(_opened(earlier, store)))
    return counted_plan(planner.shards(), planner.summary)


def counted_plan(shards: Iterable[PlannedShard], summary: PlanSummary) -> Plan:
    """The shards on disk, and what they come to.

    Args:
        summary: what there is to say of them besides; complete when the last has been taken.
    """
    plan = Plan(rows=PlanFile(()), summary=summary)
    plan.rows = PlanFile(_counted(shards, plan))
    return plan


def _counted(shards: Iterable[PlannedShard], plan: Plan) -> Iterator[PlannedShard]:
    """The shards, counted as they pass."""
    for shard in shards:
        plan.by_format[shard.format] += 1
        plan.by_action[shard.action] += 1
        plan.bytes += shard.size
        plan.num_todo += shard.num_todo or 0
        plan.uncounted += shard.num_todo is None
        yield shard


def _earlier_plans(output: str, store: StoreConfig) -> list[ObjectInfo]:
    """Every plan over this output, the oldest first."""
    plans = [info for info in list_objects(join_uri(output, RUNS), store) if name_of(info.uri) == PLAN_FILE]
    return sorted(plans, key=lambda info: info.uri)


def _opened(plans: Iterable[ObjectInfo], store: StoreConfig) -> Iterator[BinaryIO]:
    """Each of these plans, until the next is asked for."""
    for info in plans:
        with open_reader(info.uri, store, size=info.size, etag=info.etag) as file:
            yield file
