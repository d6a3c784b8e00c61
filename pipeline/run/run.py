"""The facts of a run: everything that is known before the work begins and does not change afterwards.

prepare  ->  Run      facts, frozen: config, checkpoint, identity, plan, lease
         ->  Ledger   findings, which grow: published files, receipts, counters, timeline (see `ledger.py`)
execute  (Run, Ledger)  ->  passes  ->  report
"""

from dataclasses import dataclass
from typing import Any

from pipeline.config.checkpoint import Checkpoint
from pipeline.config.job_config import JobConfig
from pipeline.lease.lease import Lease
from pipeline.output.layout import RUNS
from pipeline.plan.plan import Plan
from pipeline.store.store_path import StorePath


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """The facts of one run.

    Attributes:
        config: settings that the user chose.
        run_id: name of the run's folder below `runs/`.
        started_at: `time.time()` of the start of the program.
        checkpoint: weights of the network, and the labels of its classes.
        identity: settings that decide the rows of the output; `_job.json` holds the same settings.
        plan: work that was left when the run began.
        lease: right to write to the output.
        listing_s: seconds that listing the inputs and making the plan took.
        older: digests of identities that the output had under older rules of reading.
    """

    config: JobConfig
    run_id: str
    started_at: float
    checkpoint: Checkpoint
    identity: dict[str, Any]
    plan: Plan
    lease: Lease
    listing_s: float
    older: tuple[str, ...] = ()

    @property
    def folder(self) -> StorePath:
        """The run's folder in the output."""
        return self.config.output.folder.join(RUNS, self.run_id)
