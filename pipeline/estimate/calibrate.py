"""Measures the pace of a job that has not run yet: runs a sample of the plan for a minute, and then removes its files.

This trial is a real run on the real cluster. The trial writes into a scratch folder in the output, because every node
can reach the output, and writing takes as long there as in the real run. The scratch folder lies outside `runs/`, so
that no later run takes the trial for an earlier run.
"""

import logging
import math
import secrets
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
from pipeline.plan.plan_summary import PlanSummary
from pipeline.plan.sampling import trial_plan
from pipeline.run.execute import execute
from pipeline.run.ledger import Ledger
from pipeline.run.run import Run
from pipeline.run.stopper import Ending, own_stopper
from pipeline.store.errors import StoreError
from pipeline.store.preflight import preflight
from pipeline.store.store_path import StorePath

logger = logging.getLogger(__name__)

# Seconds from the first row to the end of the trial. If images take long, few slices are published in ENOUGH_S, and the
# trial goes on for at most MOST_S.
ENOUGH_S = 60.0
MOST_S = 180.0
_ENOUGH_FILES = 4  # published files per actor

_MOST_SHARDS = 1024
_MOST_MEMBERS = 200_000
# The trial measures only slices that are published when the trial ends, so its slices are small: one chunk, or a few
# chunks if one chunk is little work for the network. With too small slices, writing would slow down a fast device.
_SLICE_GMAC = 250.0
_MOST_CHUNKS = 8

_ENDING = Ending("stopped", "the calibration has seen enough")
_CLEANINGS = 3


def calibrate(run: Run, image_px: float, image_gmac: float, on_progress: Callable[[Progress], None]) -> Pace | None:
    """Returns the pace of a trial run over a sample of the plan; None if too few images reached the network.

    The files of the trial are removed from the output, even if the trial fails or is stopped.

    Args:
        image_px, image_gmac: mean pixels and giga-MACs of an image.
        on_progress: function that is called with the progress about once a second.

    Raises:
        PipelineError: the trial could not begin, or the user stopped it.
    """
    # The name is random, since a calibration that was killed may have left its folder.
    folder = run.config.output.folder.join(CALIBRATION, f"{run.run_id}-{secrets.token_hex(4)}")
    lease = Lease(folder, run.run_id)
    # However the trial ends, signals do not interrupt the removal of its files.
    with own_stopper() as stopper, _scratch_folder(folder), stopper.armed(), lease:
        trial = _trial(run, folder.uri, rows_per_slice(image_px, image_gmac), lease)
        ledger = Ledger(trial.started_at)

        def watch(progress: Progress) -> None:
            on_progress(progress)
            num_actors = ledger.processors.num_actors[1] if ledger.processors else 1
            if _is_enough(progress, num_actors, time.time()):
                stopper.stop(_ENDING)

        preflight(folder)
        lease.take()
        num_shards, rows_per_file = trial.plan.num_shards, trial.config.output.rows_per_file
        logger.info("calibration.started shards=%d rows_per_file=%d", num_shards, rows_per_file)
        report = execute(trial, ledger, watch, stopper=stopper)
    if report.status == "stopped" and stopper.ending is not _ENDING:
        raise StoppedError(f"{report.reason}, in its calibration; nothing of it was kept")
    if report.status in ("failed", "stalled"):
        reason = report.reason or "; ".join(report.problems)
        logger.warning("calibration.failed status=%s reason=%r: the run itself may fail, too", report.status, reason)
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
        logger.warning("calibration.short steady_s=%.1f: a trial so short says little about a long run", pace.steady_s)
    return pace


def rows_per_slice(image_px: float, image_gmac: float) -> int:
    """Returns the number of rows in a slice of the trial: one chunk, or a few chunks if one chunk is little work."""
    chunk_rows = max(1, min(CHUNK_MAX_RECORDS, int(CHUNK_MAX_BYTES / max(1.0, 3 * image_px))))
    chunks = math.ceil(_SLICE_GMAC / max(1e-9, chunk_rows * image_gmac))
    return chunk_rows * min(_MOST_CHUNKS, chunks)


def _is_enough(progress: Progress, num_actors: int, now: float) -> bool:
    """Returns True if the trial has gone on for long enough."""
    if progress.first_row_at is None:
        return False
    seconds = now - progress.first_row_at
    return seconds >= MOST_S or (seconds >= ENOUGH_S and progress.published.files >= _ENOUGH_FILES * num_actors)


def _trial(run: Run, folder: str, rows_per_file: int, lease: Lease) -> Run:
    """Returns the trial, a run over a sample of the plan.

    `started_at` of the trial is set back by the seconds that loading the weights and listing the inputs took.
    """
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
def _scratch_folder(folder: StorePath) -> Iterator[None]:
    """Removes all objects in a folder when the block ends.

    On a local disk, the folder and those of its parents that did not exist before the block are removed as well.
    """
    path = folder.local_path
    made = [] if path is None else [place for place in path.parents if not place.exists()]
    try:
        yield
    finally:
        # The folder is cleaned again, because a collector that was ended during a write may finish the write later.
        for _ in range(_CLEANINGS):
            try:
                num_removed = folder.remove_below()
            except (StoreError, OSError) as error:
                logger.warning("calibration.not_removed folder=%s error=%s: remove it", folder.shown, error)
                break
            if not num_removed:
                break
        with suppress(OSError):  # a folder that is not empty has another user by now
            for place in made:
                place.rmdir()
