"""Does one run of the pipeline, from config to summary, for the commands that run the network."""

import argparse
import logging
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from jobs.cli.command import configure_logging, run_and_notify
from jobs.cli.flags import job_config
from jobs.cli.printable import printable
from jobs.cli.progress import ProgressDisplay
from pipeline.account.report import Report
from pipeline.chunks.task import Task
from pipeline.config.job_config import JobConfig
from pipeline.errors import AccountsError, IncompleteError, LeaseLostError, PipelineError, TooManyFailedError
from pipeline.estimate.estimate import estimate_run
from pipeline.inputs.left_out import glob_in_any_case
from pipeline.inputs.names import UNDECODED_ENDINGS
from pipeline.lease.lease import Lease, LeaseTiming
from pipeline.output.config import OutputConfig
from pipeline.output.layout import new_run_id
from pipeline.run.execute import Fill, execute
from pipeline.run.ledger import Ledger
from pipeline.run.left_out import inputs_without_images, warn_about
from pipeline.run.prepare import prepare
from pipeline.run.remaining import failed_again
from pipeline.run.run import Run
from pipeline.run.seen_sizes import compare_sizes
from pipeline.run.stopper import Ending, Stopper
from pipeline.run.summary import describe_plan, summarise
from pipeline.store.uris import shown

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Upkeep:
    """Further work of a job, which is done while the run holds its lease.

    Attributes:
        check: function that is called before the work, also in a dry run, and raises an error if something is wrong.
        keep: function that is called after a run that did all its work, or all work that its bounds allow. The function
            returns further entries of the summary, and further errors that the run ends with.
    """

    check: Callable[[Run], None]
    keep: Callable[[Run, Ledger], tuple[dict[str, Any], list[PipelineError]]]


def run_job(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str],
    task: Callable[[argparse.Namespace], Task],
    stopper: Stopper | None,
) -> dict[str, Any]:
    """Parses the arguments of a job and runs it; returns the summary.

    Args:
        parser: parser of `make_parser`, with the job's own flags added.
        arguments: words of the command line.
        task: function that makes the task of the network from the parsed flags.
        stopper: stopper of the command; if None, a stopper is installed while the job runs.
    """
    started_at = time.time()
    flags = parser.parse_args(arguments)
    configure_logging(flags.log_level)
    return run_and_notify(
        flags, lambda stopper: run_config(job_config(flags, task(flags)), started_at, stopper), stopper
    )


def run_config(
    config: JobConfig, started_at: float, stopper: Stopper, upkeep: Upkeep | None = None, fill: Fill | None = None
) -> dict[str, Any]:
    """Does one run, or plans it if the run is a dry run; returns the summary.

    Args:
        started_at: `time.time()` of the start of the program.
        stopper: installed stopper, which ends the run early.
        upkeep: further work of the job; None if the job has no further work.
        fill: function that publishes slices whose rows are known already; None for none.
    """
    config = replace(config, run_id=config.run_id or new_run_id(started_at))
    with output_lease(config.output, config.run_id or "", stopper) as lease:
        run, ledger = prepare(config, started_at, lease)
        if upkeep is not None:
            upkeep.check(run)
        ledger.note_size_check(compare_sizes(run))
        if config.dry_run:
            print_plan(run)
            plan = {**describe_plan(run), "size_check": ledger.size_check}
            return {**plan, "estimate": _estimate(run), "status": "planned", "exit_code": 0}
        with closing(ProgressDisplay()) as display:
            report = execute(run, ledger, display, stopper=stopper, fill=fill)
        more: dict[str, Any] = {}
        is_bound = ledger.bound is not None
        again = failed_again(run, ledger.files)
        errors = verdicts(report, config.max_failed_fraction, is_bound=is_bound, failed_again=again)
        warn_about(run, report)
        if report.status == "done" and not is_bound:
            errors += inputs_without_images(run, ledger.files.values())
        if upkeep is not None and (report.status == "done" or is_bound):
            more, later = _kept(upkeep, run, ledger)
            errors += later
    # Errors that people must look at come before errors that the next run repairs.
    errors.sort(key=lambda error: isinstance(error, IncompleteError))
    for error in errors:
        print(f"error: {printable(str(error))}", file=sys.stderr, flush=True)
    if errors:
        more["error"] = "; ".join(map(str, errors))
    exit_code = errors[0].exit_code if errors else 0
    return {**summarise(run, ledger.bound, report), **more, "exit_code": exit_code}


def _kept(upkeep: Upkeep, run: Run, ledger: Ledger) -> tuple[dict[str, Any], list[PipelineError]]:
    """Returns the result of `upkeep.keep`, or the error that it raises; only a `LeaseLostError` is raised again."""
    try:
        return upkeep.keep(run, ledger)
    except LeaseLostError:
        raise
    except PipelineError as error:
        return {}, [error]


def _estimate(run: Run) -> dict[str, Any] | None:
    if not run.config.calibrate:
        return estimate_run(run, lambda _: None)
    with closing(ProgressDisplay()) as display:
        return estimate_run(run, display)


def output_lease(config: OutputConfig, run_id: str, stopper: Stopper, timing: LeaseTiming | None = None) -> Lease:
    """Returns the lease of a run on its output, not taken yet. If the lease is lost, the stopper ends the run.

    Args:
        timing: times of the lease. If None, the lease lasts at least as long as a request to the store is repeated.
    """
    timing = timing or LeaseTiming(expiry_s=max(LeaseTiming.expiry_s, config.store.deadline_s))

    def end_run() -> None:
        logger.error("run.interrupted reason=the lease on the output was lost; the run writes nothing more")
        stopper.stop(Ending("failed", "the lease on the output was lost"))

    return Lease(config.folder, run_id, timing, on_lost=end_run)


def print_plan(run: Run) -> None:
    """Prints a line for each shard that a run would read: its action, format, records, MiB and URI.

    Prints a further line for each output file that the run would empty.
    """
    for shard in run.plan.shards:
        records = "?" if shard.num_todo is None else f"{shard.num_todo:,}"
        size = f"{shard.size / 2**20:,.1f} MiB"
        print(f"{shard.action:8}  {shard.format:7}  {records:>9}  {size:>14}  {printable(shown(shard.shard))}")
    for entry in run.plan.summary.emptied:
        file = entry.file
        print(f"{'empty':8}  {'':7}  {file.rows:>9,}  {'':>14}  {printable(shown(file.shard))} slice {file.slice}")


def verdicts(
    report: Report, max_failed_fraction: float, *, is_bound: bool = False, failed_again: int = 0
) -> list[PipelineError]:
    """Returns the errors that a run ends with, the worst first; an empty list if the run succeeded.

    Args:
        is_bound: whether a bound such as `--max-images` ended the run, after all the work that the bound allows. The
            share of failed records is then judged as for a run that is done.
        failed_again: number of records that failed in an earlier run and failed again in this run. These records do not
            count, since the earlier run reported them.
    """
    if report.problems:
        more = f" (and {len(report.problems) - 3} more)" if len(report.problems) > 3 else ""
        return [AccountsError(f"the accounts do not close: {'; '.join(report.problems[:3])}{more}")]
    found: list[PipelineError] = []
    listed, failed = report.run.listed - failed_again, report.run.failed - failed_again
    # A quotient is compared, since a product with a fraction such as 0.29 may lie just below the exact whole number.
    if (report.status == "done" or is_bound) and listed and failed / listed > max_failed_fraction:
        found.append(
            TooManyFailedError(
                f"{failed} of {listed} records failed ({dict(report.run.failed_by_code)}), more than "
                f"--max-failed-fraction {max_failed_fraction:g}; every one of them has its row"
                f"{_not_decoded(report)}"
            )
        )
    if report.status != "done":
        why = f"{report.status}: {report.reason}" if report.reason else report.status
        found.append(IncompleteError(f"{why}; the rows published so far are whole, the same command continues"))
    return found


def _not_decoded(report: Report) -> str:
    """Returns a text with the formats that are never decoded, and the flags that leave them out; empty without such."""
    endings = [ending for ending in report.breakdown.unsupported if ending in UNDECODED_ENDINGS]
    if not endings:
        return ""
    formats = Counter[str]()
    for ending in endings:
        formats[UNDECODED_ENDINGS[ending]] += report.breakdown.unsupported[ending]
    named = ", ".join(f"{number} x {name}" for name, number in formats.most_common())
    flags = " ".join(f"--exclude {shlex.quote(glob_in_any_case(ending))}" for ending in endings)
    return f". Not decoded: {named}. The same command with {flags} and another --output leaves these out"
