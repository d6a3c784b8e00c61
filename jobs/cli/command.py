"""Runs a command: sets up logging and signals, prints the last line of stdout, and posts to the webhook."""

import argparse
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from jobs.cli.printable import OneLine, printable
from jobs.cli.webhook import run_ended, webhook_from
from pipeline.errors import PipelineError, StoppedError
from pipeline.run.stopper import Stopper, own_stopper

logger = logging.getLogger(__name__)


def run_command(command: Callable[[Sequence[str], Stopper], dict[str, Any]], arguments: Sequence[str]) -> int:
    """Runs a command, prints its summary as the last line of stdout, and returns the exit code of the process.

    An error of the command is printed as a sentence, and the summary then describes the error.

    Args:
        command: function that takes the arguments and the stopper, and returns the summary. `exit_code` in the summary
            is the exit code of the process.
        arguments: words of the command line.
    """
    # The stopper handles signals until the process ends, so a late signal changes neither last line nor exit code.
    stopper = Stopper()
    stopper.install()
    summary = _summary_of(lambda: command(arguments, stopper))
    stopper.disarm()
    print(json.dumps(summary), flush=True)
    return int(summary["exit_code"])


def run_and_notify(
    flags: argparse.Namespace, work: Callable[[Stopper], dict[str, Any]], stopper: Stopper | None
) -> dict[str, Any]:
    """Runs `work`, then posts its summary to the webhook, if one is set; returns the summary.

    Args:
        flags: parsed flags of the command. `notify_url` replaces the URL in the environment; a dry run posts nothing.
        work: function that takes the stopper and returns the summary. If a webhook is set, an error of the function
            becomes a summary too.
        stopper: stopper of the command; if None, a stopper is installed while the work is done.

    Raises:
        ConfigError: the URL is not the URL of a webhook.
    """
    if stopper is None:
        with own_stopper() as stopper:
            return run_and_notify(flags, work, stopper)
    webhook = webhook_from(flags.notify_url, os.environ)
    if webhook is None or flags.dry_run:
        return work(stopper)
    summary = _summary_of(lambda: work(stopper))
    # A signal that comes while the summary is posted does not change how the process ends.
    stopper.disarm()
    webhook.send(run_ended(summary))
    return summary


def _summary_of(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns the summary that `work` returns, or a summary of the error that `work` raises."""
    try:
        return work()
    except PipelineError as error:
        return _failure(error)
    except KeyboardInterrupt:
        return _failure(StoppedError("stopped before the work began"))
    except Exception as error:
        logger.debug("internal error", exc_info=True)
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{frame.name}, line {frame.lineno}"
        what = f"internal error: {type(error).__name__}: {error} ({where}); --log-level debug tells more"
        return _failure(PipelineError(what))


def _failure(error: PipelineError) -> dict[str, Any]:
    message = " ".join(str(error).split())
    print(f"error: {printable(message)}", file=sys.stderr, flush=True)
    return {
        "status": "stopped" if isinstance(error, StoppedError) else "failed",
        "exit_code": error.exit_code,
        "error": message,
    }


def configure_logging(level: str) -> None:
    """Sends log lines to stderr; libraries log only warnings and errors."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for package in ("jobs", "pipeline", "model", "__main__"):
        logging.getLogger(package).setLevel(level.upper())
