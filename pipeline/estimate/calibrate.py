"""The pace of a job that has not run yet: the job itself, on a drawn part of its plan, for a minute; nothing stays.

It is the real run, on the real cluster, into a folder of its own in the output: what every node can reach, and what
takes as long to write to. That folder lies outside `runs`, where it might be taken for an earlier run.
"""

import logging
import math
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from pipeline.account.progress import Progress
from pipeline.chunks.chunk import CHUNK_MAX_BYTES, CHUNK_MAX_RECORDS
from pipeline.config.job_config import BoundsConfig
from pipeline.errors import StoppedError
from pipeline.estimate.pace import LONG_S, Pace, pace_of
from pipeline.lease.lease import Lease
from pipeline.output.layout import CALIBRATION
from pipeline.plan.plan import make_plan
from pipeline.plan.planner import PlanSummary
from pipeline.plan.sampling import trial_plan
from pipeline.run.execute import execute
from pipeline.run.ledger import Ledger
from pipeline.run.run import Run
from pipeline.run.stopper import Ending, own_stopper
from pipeline.store.errors import StoreError
from pipeline.store.preflight import preflight
from pipeline.store.storage import StoreConfig, delete, list_objects
from pipeline.store.uris import is_local, join_uri, local_path, shown

logger = logging.getLogger(__name__)

# From the first row on. Where images take long, so few slices are published by then that it goes on for a while.
ENOUGH_S = 60.0
MOST_S = 180.0
_ENOUGH_FILES = 4  # for each actor

_MOST_SHARDS = 1024
_MOST_MEMBERS = 200_000
# Only what is published is in the account, and what is not when the trial ends is lost to it. So a slice is one chunk,
# or where chunks are quickly done some more, lest writing be what bounds a fast device.
_SLICE_GMAC = 250.0
_MOST_CHUNKS = 8

_ENDING = Ending("stopped", "the calibration has seen enough")
_CLEANINGS = 3


def calibrate(run: Run, image_px: float, image_gmac: float, on_progress: Callable[[Progress], None]) -> Pace | None:
    """The pace at which the planned run would go; None if the network did nothing, and the log says so.

    The output is left as it was, whatever happens.

    Args:
        image_px, image_gmac: pixels and giga-MACs of one image, on average.

    Raises:
        PipelineError: the run could not be begun, or was told to stop.
    """
    output, store = run.config.output.uri, run.config.output.store
    # A name of its own: a calibration that was killed may have left a folder.
    folder = join_uri(output, CALIBRATION, f"{run.run_id}-{secrets.token_hex(4)}")
    lease = Lease(folder, store, run.run_id)
    # Whatever ends the trial, signals do not interrupt what follows it.
    with own_stopper() as stopper, _scratch_folder(folder, store), stopper.armed(), lease:
        trial = _trial(run, folder, rows_per_slice(image_px, image_gmac), lease)
        ledger = Ledger(trial.started_at)

        def watch(progress: Progress) -> None:
            on_progress(progress)
            num_actors = ledger.processors.num_actors[1] if ledger.processors else 1
            if _is_enough(progress, num_actors, time.time()):
                stopper.stop(_ENDING)

        preflight(folder, store)
        lease.take()
        num_shards, rows_per_file = trial.plan.num_shards, trial.config.output.rows_per_file
        logger.info("calibration.started shards=%d rows_per_file=%d", num_shards, rows_per_file)
        report = execute(trial, ledger, watch, stopper=stopper)
    if report.status == "stopped" and stopper.ending is not _ENDING:
        raise StoppedError(f"{report.reason}, in its calibration; nothing of it was kept")
    if report.status in ("failed", "stalled"):
        reason = report.reason or "; ".join(report.problems)
        logger.warning("calibration.failed status=%s reason=%r: the run itself may, too", report.status, reason)
    pace = pace_of(report.to_dict())
    if pace is None:
        logger.warning("calibration.no_pace reason=%r", report.reason or "no image reached the network")
        return None
    logger.info(
        "calibration.done status=%s images=%d fixed_s=%.1f steady_s=%.1f gmac_per_s=%.3f",
        report.status,
        report.run.listed,
        pace.fixed_s,
        pace.steady_s,
        pace.gmac_per_s,
    )
    if pace.steady_s < LONG_S:
        logger.warning("calibration.short steady_s=%.1f: so small a sample tells little of a long run", pace.steady_s)
    return pace


def rows_per_slice(image_px: float, image_gmac: float) -> int:
    """Rows at which the trial's slices end: those of one chunk, or of some where the network is quick with one."""
    chunk_rows = max(1, min(CHUNK_MAX_RECORDS, int(CHUNK_MAX_BYTES / max(1.0, 3 * image_px))))
    chunks = math.ceil(_SLICE_GMAC / max(1e-9, chunk_rows * image_gmac))
    return chunk_rows * min(_MOST_CHUNKS, chunks)


def _is_enough(progress: Progress, num_actors: int, now: float) -> bool:
    """True when the trial has gone on for long enough."""
    if progress.first_row_at is None:
        return False
    seconds = now - progress.first_row_at
    return seconds >= MOST_S or (seconds >= ENOUGH_S and progress.published.files >= _ENOUGH_FILES * num_actors)


def _trial(run: Run, folder: str, rows_per_file: int, lease: Lease) -> Run:
    """The run over a part of the plan; it takes the time that this one has spent on weights and listing for its own."""
    output = replace(run.config.output, uri=folder, rows_per_file=rows_per_file)
    shards = trial_plan(run.plan.shards, most_shards=_MOST_SHARDS, most_members=_MOST_MEMBERS, neighbours=rows_per_file)
    return Run(
        config=replace(run.config, output=output, bounds=BoundsConfig(), dry_run=False, calibrate=False, thumbnails=0),
        run_id=run.run_id,
        started_at=time.time() - run.checkpoint.load_s - run.listing_s,
        checkpoint=run.checkpoint,
        identity=run.identity,
        plan=make_plan(shards, PlanSummary()),
        lease=lease,
        listing_s=run.listing_s,
    )


@contextmanager
def _scratch_folder(folder: str, store: StoreConfig) -> Iterator[None]:
    """Removes what is in a folder when the block ends; on a local disk the folder too, and those made above it."""
    made = [place for place in local_path(folder).parents if not place.exists()] if is_local(folder) else []
    try:
        yield
    finally:
        # A collector that was ended in the middle of a write may have written after all.
        for _ in range(_CLEANINGS):
            try:
                num_removed = _remove_below(folder, store)
            except (StoreError, OSError) as error:
                logger.warning("calibration.not_removed folder=%s error=%s: remove it", shown(folder), error)
                break
            if not num_removed:
                break
        with suppress(OSError):  # not empty: somebody else's by now
            for place in made:
                place.rmdir()


def _remove_below(folder: str, store: StoreConfig) -> int:
    """Removes everything below a folder; returns how many files that were, of a local disk 1 for the folder itself."""
    if is_local(folder):
        path = local_path(folder)
        if not path.exists():
            return 0
        shutil.rmtree(path)
        return 1
    found = [info.uri for info in list_objects(folder, store)]
    for uri in found:
        delete(uri, store)
    return len(found)
