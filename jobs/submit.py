"""Runs a command as a job of a Ray cluster, and ends with the exit code of the job.

    python jobs/submit.py --address http://HOST:8265 --date 2026-11-27 -- python jobs/classify.py --input ...

A job is named after its day and its command, so a repeated start finds the earlier job. A job that runs is followed, a
job that is done is left alone, and a job that failed or was stopped is submitted again as the next attempt. The job's
log goes to stderr. The last line of stdout is a summary as JSON, which contains the job's own summary.
"""

import argparse
import hashlib
import json
import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Python puts the folder of a script on the path of modules, but not the folder that holds the packages.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ray.job_submission import JobDetails, JobStatus

from jobs.cli.command import configure_logging, run_command
from jobs.cli.flags import NO_TOKEN_HELP, Parser
from jobs.cli.printable import printable
from jobs.remote.attempts import AttemptState, NoAnswerError, find_or_create
from jobs.remote.ray_jobs import RayJobs
from pipeline.cluster.tokens import REMEDY, check_sends_token, is_loopback, sends_token
from pipeline.errors import ConfigError, IncompleteError, PipelineError, StoppedError

logger = logging.getLogger(__name__)

EXIT_CODES = """exit codes:
  0   the job succeeded, now or before
  2   bad configuration, or no answer from the cluster
  9   the job was stopped, or goes on without this command, or the cluster forgot it; the same command
      continues
  else the job's own"""
_ADDRESS_HELP = "of the dashboard: http://HOST:8265; default: RAY_ADDRESS"
_NAME_HELP = "what the job's name begins with; default: %(default)s"
_DATE_HELP = "YYYY-MM-DD, the scheduler's: the night that a job belongs to, however late it starts; default: today, UTC"
_ID_HELP = "name of the job; default: NAME-DATE-HASH, with a hash of the command"
_DIR_HELP = (
    "folder or URI that the job runs in, sent along without what .gitignore names; '' is none; default: %(default)s"
)
_POLL_HELP = "seconds between two looks at the job; default: %(default)g"
_PATIENCE_HELP = "seconds for which a cluster that does not answer is asked again; default: %(default)g"
_ATTEMPTS_HELP = "how often a job that fails is submitted, all starts together; default: %(default)s"
_STOP_HELP = "SIGTERM and Ctrl-C stop the job too; without it the job goes on, and the next start follows it"

_SUBMISSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# Ray always sends a whole log, so a long log is requested less often.
_LOG_BYTES_PER_S = 64 * 2**10
_NO_LOG_S = 60.0
# Seconds to wait for the end of a job that was asked to stop. Ray kills the job after three seconds.
_STOP_S = 30.0


def submit(arguments: Sequence[str], _: object = None) -> dict[str, Any]:
    """Submits or finds the job, and follows it to its end; returns the summary."""
    flags = _parser().parse_args(arguments)
    configure_logging(flags.log_level)
    entrypoint = shlex.join(flags.command)
    digest = hashlib.sha256(entrypoint.encode()).hexdigest()[:8]
    base = flags.submission_id or f"{flags.name}-{_day(flags.date)}-{digest}"
    if flags.max_attempts < 1 or flags.poll_s <= 0 or flags.patience_s < 0:
        raise ConfigError("--max-attempts and --poll-s must be positive, --patience-s not negative")
    if not _SUBMISSION_ID.fullmatch(base):
        raise ConfigError(f"{base!r} is no name for a job: take letters, digits, '.', '_' and '-', a hundred at most")
    try:
        cluster = reach(flags.address, flags.patience_s, flags.allow_no_token)
        submission_id = find_or_submit(cluster, base, entrypoint, flags.working_dir, flags.max_attempts)
    except NoAnswerError as error:
        raise ConfigError(str(error)) from error
    except KeyboardInterrupt:
        raise StoppedError(
            "stopped while the job was looked for; the next start finds the job, if there is one"
        ) from None
    follower = Follower(cluster, submission_id, flags.poll_s)
    try:
        return follower.follow()
    except KeyboardInterrupt:
        return follower.stop() if flags.stop_with_me else follower.leave("stopped by a signal; the job goes on")
    except NoAnswerError as error:
        return follower.leave(str(error))


def reach(address: str, patience_s: float, allow_no_token: bool) -> RayJobs:
    """Returns the cluster whose dashboard has this address.

    Raises:
        ConfigError: The cluster is on another machine, and either this process has no token to send or the cluster
            takes jobs without a token. At a loopback address, a cluster that takes jobs without a token is refused only
            if this process has a token to send: a tunnel may then lead to another machine.
        NoAnswerError: The dashboard does not answer.
    """
    try:
        host = urlsplit(address).hostname or ""
    except ValueError as error:
        raise ConfigError(f"--address {address}: {error}") from error
    if host and not allow_no_token:
        check_sends_token(address, host)
    cluster = RayJobs(address, patience_s)
    is_to_ask = not is_loopback(host) or sends_token()
    if not allow_no_token and is_to_ask and cluster.answers_anybody():
        raise ConfigError(f"{address} lists its jobs without a token, and so takes jobs from anybody: {REMEDY}")
    return cluster


def find_or_submit(cluster: RayJobs, base: str, entrypoint: str, working_dir: str, max_attempts: int) -> str:
    """Returns the name of the job to follow, which is the first attempt that neither failed nor was stopped.

    An attempt that the cluster does not know is submitted. Once all attempts are used up, the last attempt is followed.

    Raises:
        ConfigError: A job of this name runs another command.
    """

    def find(submission_id: str) -> AttemptState | None:
        job = cluster.find(submission_id)
        if job is None:
            return None
        if job.entrypoint != entrypoint:
            raise ConfigError(f"job {submission_id} is of another command: give another --submission-id or --name")
        if not job.status.is_terminal():
            logger.info("job.found id=%s: the job runs since an earlier start, and is followed", submission_id)
            return "running"
        if job.status == JobStatus.SUCCEEDED:
            logger.info("job.was_done id=%s: to run the job once more, give another --name or --date", submission_id)
            return "done"
        # The exit code is logged, since an earlier follower may have missed the end of the job, and the next attempt
        # does not find a drift of the data set (exit code 8) again.
        logger.warning("job.ended_before id=%s status=%s exit_code=%s", submission_id, job.status, job.driver_exit_code)
        return "failed"

    def create(submission_id: str, attempt: int) -> bool:
        is_new = cluster.submit(submission_id, entrypoint, {"working_dir": working_dir} if working_dir else {})
        if is_new:
            logger.info("job.submitted id=%s attempt=%d", submission_id, attempt)
        return is_new

    submission_id, are_used_up = find_or_create(base, max_attempts, find, create)
    if are_used_up:
        logger.warning("job.no_more_attempts id=%s: --max-attempts %d are used up", submission_id, max_attempts)
    return submission_id


class Follower:
    """Polls one job until the job ends, and copies the job's log to stderr."""

    def __init__(self, cluster: RayJobs, submission_id: str, poll_s: float) -> None:
        self._cluster = cluster
        self._id = submission_id
        self._poll_s = poll_s
        self._status: JobStatus | None = None
        self._log = ""
        self._next_log_s = 0.0

    def follow(self, timeout_s: float = float("inf")) -> dict[str, Any]:
        """Waits until the job has ended, for at most `timeout_s` seconds, and returns the summary of the job."""
        deadline = time.monotonic() + timeout_s
        while True:
            job = self._cluster.find(self._id)
            self._status = job and job.status
            if job is None:
                return self.leave("the cluster knows the job no more: was its head restarted?")
            if job.status.is_terminal():
                return self._ended(job)
            if time.monotonic() >= self._next_log_s:
                self._pass_on_log_if_there()
            if time.monotonic() >= deadline:
                return self.leave("it has not ended yet")
            time.sleep(self._poll_s)

    def stop(self) -> dict[str, Any]:
        """Stops the job; returns the summary."""
        logger.info("job.stop id=%s", self._id)
        try:
            self._cluster.stop(self._id)
            return self.follow(_STOP_S)
        except NoAnswerError as error:
            return self.leave(str(error))

    def leave(self, why: str) -> dict[str, Any]:
        """Returns the summary of a job that this process no longer follows, for the reason `why`."""
        return self._summary("left", IncompleteError.exit_code, None, f"{why}; the same command continues")

    def _ended(self, job: JobDetails) -> dict[str, Any]:
        try:
            self._pass_on_log()
        except NoAnswerError as error:
            logger.warning("job.log_lost id=%s error=%s", self._id, error)
        found = last_line_of_job(self._log)
        if job.status == JobStatus.SUCCEEDED:
            return self._summary("done", 0, found)
        if job.status == JobStatus.STOPPED:
            return self._summary(
                "stopped", IncompleteError.exit_code, found, "it was stopped; the same command continues"
            )
        message = " ".join((job.message or "").split())[:500]
        return self._summary("failed", exit_code_of(found, job.driver_exit_code), found, message)

    def _summary(
        self, status: str, exit_code: int, of_job: dict[str, Any] | None, error: str | None = None
    ) -> dict[str, Any]:
        if error:
            print(f"error: job {self._id}: {printable(error)}", file=sys.stderr, flush=True)
        return {
            "status": status,
            "submission_id": self._id,
            "job_status": None if self._status is None else str(self._status),
            "exit_code": exit_code,
            "summary": of_job,
        }

    def _pass_on_log_if_there(self) -> None:
        try:
            self._pass_on_log(patience_s=0)
            self._next_log_s = time.monotonic() + len(self._log) / _LOG_BYTES_PER_S
        except NoAnswerError as error:
            # The log lies on the job's node, while the head node knows whether the job runs. So a log that cannot be
            # read does not mean that the job is lost.
            logger.warning("job.no_log id=%s error=%s", self._id, error)
            self._next_log_s = time.monotonic() + _NO_LOG_S

    def _pass_on_log(self, patience_s: float | None = None) -> None:
        log = self._cluster.log(self._id, patience_s)
        print(log[len(self._log) :], end="", file=sys.stderr, flush=True)
        self._log = log


def last_line_of_job(log: str) -> dict[str, Any] | None:
    """Returns the last summary in a job's log: a JSON object with an `exit_code`. Returns None without a summary."""
    for line in reversed(log.splitlines()):
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found.get("exit_code"), int):
                return found
    return None


def exit_code_of(of_job: dict[str, Any] | None, driver_exit_code: int | None) -> int:
    """Returns the exit code of a failed job, never 0: the code in the job's summary, else the code that Ray reports."""
    in_summary = 0 if of_job is None else of_job["exit_code"]
    # Numbers that stand for a signal are not used as exit codes: negative numbers from Ray, 128 and more from a shell.
    return next((code for code in (in_summary, driver_exit_code or 0) if 0 < code < 128), PipelineError.exit_code)


def _day(text: str | None) -> date:
    if text is None:
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"--date {text}: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        description=(__doc__ or "").partition("\n")[0],
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("command", nargs="+", metavar="COMMAND", help="after --: what runs on the cluster, word by word")
    add("--address", default=os.environ.get("RAY_ADDRESS", ""), metavar="URL", help=_ADDRESS_HELP)
    add("--name", default="label", help=_NAME_HELP)
    add("--date", metavar="DATE", help=_DATE_HELP)
    add("--submission-id", metavar="ID", help=_ID_HELP)
    add("--working-dir", default=".", metavar="DIR", help=_DIR_HELP)
    add("--poll-s", type=float, default=5.0, metavar="N", help=_POLL_HELP)
    add("--patience-s", type=float, default=120.0, metavar="N", help=_PATIENCE_HELP)
    add("--max-attempts", type=int, default=10, metavar="N", help=_ATTEMPTS_HELP)
    add("--allow-no-token", action="store_true", help=NO_TOKEN_HELP)
    add("--stop-with-me", action="store_true", help=_STOP_HELP)
    add("--log-level", choices=("debug", "info", "warning"), default="info")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(submit, sys.argv[1:]))
