"""What the commands share: logging, the run itself, the last line and the exit code."""

import argparse
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from jobs.cli.flags import job_config
from jobs.cli.printable import OneLine, printable
from jobs.cli.progress import ProgressDisplay
from jobs.cli.webhook import run_ended, webhook_from
from model.errors import CheckpointError
from pipeline.account.report import Report
from pipeline.chunks.task import Task
from pipeline.config.job_config import JobConfig
from pipeline.errors import (
    AccountsError,
    IncompleteError,
    LeaseLostError,
    PipelineError,
    StoppedError,
    TooManyFailedError,
)
from pipeline.estimate.estimate import estimate_run
from pipeline.lease.lease import Lease, LeaseTiming
from pipeline.output.config import OutputConfig
from pipeline.output.layout import new_run_id
from pipeline.run.prepare import prepare
from pipeline.run.remaining import failed_again
from pipeline.run.run import execute
from pipeline.run.state import Run
from pipeline.run.stopper import Stopper
from pipeline.run.summary import describe_plan, summarise
from pipeline.store.uris import shown

logger = logging.getLogger(__name__)

_CHECKPOINT_EXIT = 4


def run_job(
    parser: argparse.ArgumentParser, arguments: Sequence[str], task: Callable[[argparse.Namespace], Task]
) -> dict[str, Any]:
    """Runs what some arguments ask for; returns its summary.

    Args:
        parser: of `make_parser`, with the job's own flags.
        task: what they ask of the network.
    """
    started_at = time.time()
    flags = parser.parse_args(arguments)
    configure_logging(flags.log_level)
    return run_told(flags, lambda: run_config(job_config(flags, task(flags)), started_at))


@dataclass(frozen=True, kw_only=True)
class Upkeep:
    """What a job does besides its rows, while it has the output.

    Attributes:
        check: called before the work, in a dry run too; raises what is wrong.
        keep: called when the work is done, or as much of it as was asked for, and the accounts close; gives more of the
            summary, and errors to end with.
    """

    check: Callable[[Run], None]
    keep: Callable[[Run], tuple[dict[str, Any], list[PipelineError]]]


def run_config(config: JobConfig, started_at: float, upkeep: Upkeep | None = None) -> dict[str, Any]:
    """Does what is asked for; returns the summary.

    Args:
        started_at: `time.time()` of the start of the program.
    """
    config = replace(config, run_id=config.run_id or new_run_id(started_at))
    with output_lease(config.output, config.run_id or "") as lease:
        run = prepare(config, started_at, lease)
        if upkeep is not None:
            upkeep.check(run)
        if config.dry_run:
            print_plan(run)
            return {**describe_plan(run), "estimate": _estimate(run), "status": "planned", "exit_code": 0}
        with closing(ProgressDisplay()) as display:
            report = execute(run, display)
        more: dict[str, Any] = {}
        again = failed_again(run)
        errors = verdicts(report, config.max_failed_fraction, is_bound=run.bound is not None, failed_again=again)
        if upkeep is not None and (report.status == "done" or run.bound):
            more, later = _kept(upkeep, run)
            errors += later
    # What is for people comes before what the next run mends.
    errors.sort(key=lambda error: isinstance(error, IncompleteError))
    for error in errors:
        print(f"error: {printable(str(error))}", file=sys.stderr, flush=True)
    if errors:
        more["error"] = "; ".join(map(str, errors))
    return {**summarise(run, report), **more, "exit_code": errors[0].exit_code if errors else 0}


def _kept(upkeep: Upkeep, run: Run) -> tuple[dict[str, Any], list[PipelineError]]:
    """What the upkeep gives; what it fails with is one error beside those of the run."""
    try:
        return upkeep.keep(run)
    except LeaseLostError:
        raise
    except PipelineError as error:
        return {}, [error]


def _estimate(run: Run) -> dict[str, Any] | None:
    if not run.config.calibrate:
        return estimate_run(run, lambda _: None)
    with closing(ProgressDisplay()) as display:
        return estimate_run(run, display)


def output_lease(config: OutputConfig, run_id: str) -> Lease:
    """The lease of a run on its output, not taken yet; when it is lost, the run is ended as by SIGTERM.

    A run is at least as patient with its lease as with the output's store.
    """
    timing = LeaseTiming(expiry_s=max(LeaseTiming.expiry_s, config.store.deadline_s))
    return Lease(config.uri, config.store, run_id, timing, on_lost=_stop_main_thread)


def print_plan(run: Run) -> None:
    """A line for each shard that a run would read: what is done with it, its format, records, MiB and URI."""
    for shard in run.plan.rows:
        records = "?" if shard.num_todo is None else f"{shard.num_todo:,}"
        size = f"{shard.size / 2**20:,.1f} MiB"
        print(f"{shard.action:8}  {shard.format:7}  {records:>9}  {size:>14}  {printable(shown(shard.shard))}")
    for entry in run.plan.summary.emptied:
        file = entry.file
        print(f"{'empty':8}  {'':7}  {file.rows:>9,}  {'':>14}  {printable(shown(file.shard))} slice {file.slice}")


def run_command(command: Callable[[Sequence[str]], dict[str, Any]], arguments: Sequence[str]) -> int:
    """Runs a command; its summary becomes the last line of stdout, its errors become sentences and exit codes.

    Args:
        command: arguments -> summary; the summary's `exit_code` is the process'.
    """
    # Never taken away: a signal that comes while the process ends changes neither its last line nor its exit code.
    stopper = Stopper()
    stopper.install()
    summary = _summary_of(lambda: command(arguments))
    stopper.close()
    print(json.dumps(summary), flush=True)
    return int(summary["exit_code"])


def run_told(flags: argparse.Namespace, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Does some work, and tells its end to the webhook that the flags or the environment name; returns the summary.

    Args:
        work: what gives the summary; its errors become summaries too.

    Raises:
        ConfigError: the webhook cannot be one.
    """
    webhook = webhook_from(flags.notify_url, os.environ)
    if webhook is None or flags.dry_run:
        return work()
    summary = _summary_of(work)
    # What is told is what the process ends with, whatever signal comes meanwhile.
    handler = signal.getsignal(signal.SIGTERM)
    if isinstance(handler, Stopper):
        handler.close()
    webhook.send(run_ended(summary))
    return summary


def _summary_of(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The summary of some work; of its error, if it ends with one."""
    try:
        return work()
    except PipelineError as error:
        return _failure(error, error.exit_code)
    except CheckpointError as error:
        return _failure(error, _CHECKPOINT_EXIT)
    except KeyboardInterrupt:
        return _failure(StoppedError("stopped before the work began"), StoppedError.exit_code)
    except Exception as error:
        logger.debug("internal error", exc_info=True)
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{frame.name}, line {frame.lineno}"
        what = f"internal error: {type(error).__name__}: {error} ({where}); --log-level debug tells more"
        return _failure(PipelineError(what), PipelineError.exit_code)


def _failure(error: Exception, exit_code: int) -> dict[str, Any]:
    message = " ".join(str(error).split())
    print(f"error: {printable(message)}", file=sys.stderr, flush=True)
    return {
        "status": "stopped" if isinstance(error, StoppedError) else "failed",
        "exit_code": exit_code,
        "error": message,
    }


def _stop_main_thread() -> None:
    # A signal, as if from outside: the main thread may be waiting in a system call.
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def verdicts(
    report: Report, max_failed_fraction: float, *, is_bound: bool = False, failed_again: int = 0
) -> list[PipelineError]:
    """What is wrong with a run that ended, worst first; empty if all is well.

    Args:
        is_bound: it did all that it was asked for, which was not everything: its failures are looked at as well.
        failed_again: records that had failed before and were tried again in vain: told then, and no share of this run.
    """
    if report.problems:
        more = f" (and {len(report.problems) - 3} more)" if len(report.problems) > 3 else ""
        return [AccountsError(f"the accounts do not close: {'; '.join(report.problems[:3])}{more}")]
    found: list[PipelineError] = []
    listed, failed = report.run.listed - failed_again, report.run.failed - failed_again
    # Divided: a product with a fraction such as 0.29 may lie just below the whole number that it stands for.
    if (report.status == "done" or is_bound) and listed and failed / listed > max_failed_fraction:
        found.append(
            TooManyFailedError(
                f"{failed} of {listed} records failed ({dict(report.run.failed_by_code)}), more than "
                f"--max-failed-fraction {max_failed_fraction:g}; every one of them has its row"
            )
        )
    if report.status != "done":
        why = f"{report.status}: {report.reason}" if report.reason else report.status
        found.append(IncompleteError(f"{why}; the rows published so far are whole, the same command continues"))
    return found


def configure_logging(level: str) -> None:
    """Sends log lines to stderr; libraries speak up only when something is wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for package in ("jobs", "pipeline", "model", "__main__"):
        logging.getLogger(package).setLevel(level.upper())
