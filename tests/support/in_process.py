"""A run without Ray and with a real network: every step is the real one, in this process, one chunk after the other."""

import time
from collections.abc import Callable
from dataclasses import replace

from pipeline.account.report import Report
from pipeline.config.identity import claim_identity
from pipeline.config.job_config import JobConfig
from pipeline.flow.steps import steps_of
from pipeline.infer.infer_step import InferStep
from pipeline.publish.collector import Collector
from pipeline.read.read_shard import read_shard
from pipeline.run import prepare
from pipeline.run.emptying import empty_files, empty_late_files
from pipeline.run.execute import Fill, write_plan
from pipeline.run.finish import finish, finish_without_work
from pipeline.run.ledger import Ledger
from pipeline.run.remaining import missing, refresh
from pipeline.run.run import Run
from pipeline.run.step_settings import infer_config, read_config, sink_config


class _NoFence:
    def check(self) -> None:
        """Lets everyone write."""


class NoLease:
    """Lets every run write."""

    fence = _NoFence()

    def take(self, wait_s: float) -> None:
        """Nothing is taken."""


def run_in_process(
    config: JobConfig, fill: Fill | None = None, may_publish: Callable[[], None] = lambda: None
) -> tuple[Run, Ledger, Report]:
    """Does one run; returns its facts, its findings and its report.

    Args:
        fill: as for `execute`.
        may_publish: called before every PUT of a slice that was computed; an error that it raises ends the run.
    """
    run, ledger = prepare.prepare(config, time.time(), NoLease())
    if run.plan.is_empty:
        return run, ledger, finish_without_work(run, ledger)
    claim_identity(config.output.folder, run.identity, run.older)
    write_plan(run)
    empty_files(run, ledger, run.plan.summary.emptied)
    if fill is not None:
        fill(run, ledger)
        refresh(run, ledger)
    todo = list(missing(run.plan, ledger.files))
    if todo:
        ledger.begin_pass()
        collector = Collector(replace(sink_config(run), may_write=may_publish))
        collector.start_pass(1)
        decode = steps_of(config.task).decode
        step = InferStep(run.checkpoint.files.weights, infer_config(run, "cpu"))
        for shard in todo:
            for chunk in read_shard(shard, read_config(run, 1, last_pass=True)):
                collector.add(step.infer(decode(chunk, run.config.sizes)).to_table())
        state = collector.state()
        assert state.fatal is None, state.fatal
        ledger.take_receipts(state.receipts)
        refresh(run, ledger)
    empty_late_files(run, ledger)
    return run, ledger, finish(run, ledger, None)
