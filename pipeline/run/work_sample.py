"""Estimates a run's work from a sample of image headers, while the run works; the progress needs the estimate."""

import logging
import threading

from pipeline.plan.sampling import sample_shards
from pipeline.read.header_sample import planned_work
from pipeline.run.ledger import Ledger
from pipeline.run.run import Run

logger = logging.getLogger(__name__)

# A run over fewer bytes ends before the estimate is ready.
_SAMPLED_FROM_BYTES = 16 * 2**20
_SAMPLED_SHARDS = 8
_SAMPLED_IMAGES = 64


def sample_work(run: Run, ledger: Ledger) -> None:
    """Starts a thread that estimates the multiply-accumulates of the whole plan and notes the estimate in the ledger.

    A small run gets no estimate.
    """
    plan = run.plan
    if plan.num_bytes < _SAMPLED_FROM_BYTES:
        return
    shards = sample_shards(plan.shards, _SAMPLED_SHARDS)

    def sample() -> None:
        work = planned_work(
            shards,
            _SAMPLED_IMAGES,
            plan_bytes=plan.num_bytes,
            config=run.config.input,
            network=run.checkpoint.network,
            sizes=run.config.task.size_policies(run.config.sizes),
        )
        if work is not None and work.macs:
            ledger.note_planned_macs(work.macs)
            logger.info("work.sampled images=%d gmac=%.0f", work.images_sampled, work.macs / 1e9)

    threading.Thread(target=sample, name="sample", daemon=True).start()
