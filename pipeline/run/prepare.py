"""Prepares a run: checks weights, inputs and output before the work begins, and makes the plan.

The preparation leaves only the lease in the output, and takes the lease only after weights, inputs and identity were
found valid. The output is listed after the lease was taken, because from then on no other run changes the output.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice
from typing import Any, BinaryIO

from model.checkpoints.hub import is_hub
from pipeline.chunks.columns import output_schema
from pipeline.config.checkpoint import Checkpoint, fetch_checkpoint
from pipeline.config.evaluated_size import evaluated_size
from pipeline.config.identity import (
    check_identity,
    identity_digest,
    job_identity,
    older_identities,
    rules_of,
    stored_setting,
)
from pipeline.config.job_config import JobConfig
from pipeline.config.precision import choose_precision
from pipeline.config.size import resolve_size
from pipeline.errors import OutputError
from pipeline.inputs.listing import Found, Survey
from pipeline.inputs.rules import RULES
from pipeline.lease.lease import Lease
from pipeline.output.config import OutputConfig
from pipeline.output.layout import PLAN_FILE, new_run_id
from pipeline.output.past_runs import files_of_runs
from pipeline.output.published import PublishedFile, published_files, read_output_rows
from pipeline.plan.plan import Plan, make_plan
from pipeline.plan.plan_file import OwnGroups, planned_objects, read_plan
from pipeline.plan.planner import Planner, PlanOptions
from pipeline.read.input_checks import check_permission, checked_inputs, count_records
from pipeline.run.ledger import Ledger
from pipeline.run.run import Run
from pipeline.run.seen_sizes import warn_if_fitted_for_another
from pipeline.store.errors import NotFoundError, StoreError
from pipeline.store.object_info import ObjectInfo
from pipeline.store.preflight import preflight
from pipeline.store.store_path import StorePath

logger = logging.getLogger(__name__)


def prepare(config: JobConfig, started_at: float, lease: Lease) -> tuple[Run, Ledger]:
    """Checks weights, inputs and output before any work begins; returns the facts of the run and the run's ledger.

    Args:
        started_at: `time.time()` of the start of the program.
        lease: lease on the output; this function takes the lease unless the run is a dry run.

    Raises:
        PipelineError: weights, inputs or output cannot be used; the message says what to do.
    """
    output = config.output.folder
    rules = RULES if config.output.take_over else rules_of(output)
    config = replace(config, input=config.input.under_rules(rules))
    # `org/name@commit` of the weights that earlier runs used for this output.
    pinned = stored_setting(output, "weights_revision") if is_hub(config.weights) else None
    stored = stored_setting(output, "precision") if config.precision == "auto" else None
    precision, reason = choose_precision(config.precision, stored, config.compute.device)
    logger.info("precision.chosen precision=%s reason=%r", precision, reason)
    checkpoint = fetch_checkpoint(config, pinned, precision)
    if config.size_from is not None:
        evaluation = StorePath(config.size_from, config.output.store)
        sizes = evaluated_size(evaluation, config.sizes, checkpoint.info.digest)
    else:
        sizes = resolve_size(config.size, config.sizes, checkpoint.info.sizes, config.weights)
    config = replace(config, sizes=sizes)
    output_schema(config.task.columns(checkpoint.network), config.input.keep_columns)
    identity = job_identity(config, checkpoint, precision)
    warn_if_fitted_for_another(config, checkpoint.info.digest)
    return prepare_with(config, started_at, lease, checkpoint, identity)


def prepare_with(
    config: JobConfig, started_at: float, lease: Lease, checkpoint: Checkpoint, identity: dict[str, Any]
) -> tuple[Run, Ledger]:
    """Prepares a run as `prepare` does, with a checkpoint that was read already."""
    listing_began = time.monotonic()
    survey = Survey(config.input, config.output.uri)
    listed = checked_inputs(survey, config.input)
    output = config.output.folder
    try:
        _older(config.output, identity)
        # A missing or empty input raises its error when the first object is requested.
        first = list(islice(listed, 1))
        if not config.dry_run:
            # The preflight tries the conditional writes that the lease relies on.
            preflight(output)
            lease.take(config.output.wait_for_lease_s)
        # The identity is read again, because the run that held the lease before may have written the first identity.
        older = _older(config.output, identity)
        published = published_files(output, None if older is None else identity_digest(identity), older=older or ())
        if older is None and published:
            raise OutputError(f"{output} has output files but no _job.json; restore it, or choose another --output")
        plan = _plan(config, chain(first, listed), published)
        plan = replace(plan, num_ignored=survey.ignored, passed_over=survey.passed_over, only_shards=survey.only_shards)
        # The permission is checked only while the output is empty. Later, one forbidden object must not stop the run.
        if not published:
            check_permission(plan.shards, config.input)
    except StoreError as error:
        raise OutputError(f"output {output} cannot be read: {error}") from error
    run = Run(
        config=config,
        run_id=config.run_id or new_run_id(started_at),
        started_at=started_at,
        checkpoint=checkpoint,
        identity=identity,
        plan=plan,
        lease=lease,
        listing_s=time.monotonic() - listing_began,
        older=older or (),
    )
    return run, Ledger(started_at, published)


def _older(output: OutputConfig, identity: dict[str, Any]) -> tuple[str, ...] | None:
    """Checks the identity of the output; returns the older identities of its files, None if it has no identity yet."""
    try:
        check_identity(output.folder, identity, take_over=output.take_over)
        return older_identities(output.folder, identity)
    except NotFoundError:
        return None


def _plan(config: JobConfig, found: Iterable[Found], published: list[PublishedFile]) -> Plan:
    output = config.output.folder
    earlier = files_of_runs(output, PLAN_FILE)
    planner = Planner(
        found,
        published,
        OwnGroups(_opened(output, earlier)).by_plan(),
        config.input,
        PlanOptions(
            rows_per_file=config.output.rows_per_file,
            prune=config.output.prune,
            retry_codes=config.output.retry_failed,
            since_s=config.bounds.since_s,
            max_images=config.bounds.max_images,
        ),
        lambda found, at_most: count_records(found, at_most, config.input),
        lambda file: read_output_rows(file, output),
    )
    if config.input.limit is not None:
        planner.deduct_planned(shard for plan in _opened(output, earlier) for shard in read_plan(plan))
    if config.bounds.since_s is not None:
        planner.note_begun(planned_objects(_opened(output, earlier)))
    return make_plan(planner.shards(), planner.summary)


def _opened(output: StorePath, plans: Iterable[ObjectInfo]) -> Iterator[BinaryIO]:
    """Yields each plan as an open file, which is closed when the next file is requested."""
    for info in plans:
        with output.at(info.uri).open(size=info.size, etag=info.etag) as file:
            yield file
