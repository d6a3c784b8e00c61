"""Creates a RayJob of KubeRay as a copy of a pattern, follows the RayJob, and ends with the job's exit code.

    python jobs/run_rayjob.py --pattern pvtv2-label --name pvtv2-label-29734650

The pod of a CronJob runs this command. The pattern is a suspended RayJob: the operator starts no cluster for the
pattern, while kustomize, `kubectl diff` and the API server treat the pattern as any other RayJob. The copy is named
after its scheduled time, so a repeated start finds the earlier copy. A RayJob that runs is followed, a RayJob that is
done is left alone, and a RayJob that failed is created again as the next attempt. The last line of stdout is a summary
as JSON. The summary of a failed RayJob contains the job's own summary; for a RayJob that succeeded, KubeRay reports no
summary of the job.
"""

import argparse
import logging
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Python puts the folder of a script on the path of modules, but not the folder that holds the packages.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.cli.command import configure_logging, run_command
from jobs.cli.flags import Parser
from jobs.remote.attempts import AttemptState, NoAnswerError, find_or_create
from jobs.remote.kubernetes_api import RayJobObjects
from jobs.submit import exit_code_of, last_line_of_job
from pipeline.errors import ConfigError, IncompleteError, StoppedError

logger = logging.getLogger(__name__)

EXIT_CODES = """exit codes:
  0   the job succeeded, now or before, or ended with one of --good-exit-codes
  2   bad configuration, or a right that the service account lacks
  9   the job was stopped, lost its cluster or ran out of time, or goes on without this command; or Kubernetes
      gave no answer. The same command continues
  else the job's own"""
PATTERN_LABEL = "pvtv2-batch/pattern"
"""Label whose value is the name of the pattern that a RayJob was copied from."""
MAX_NAME = 47
"""Longest name of a RayJob, in characters, that KubeRay accepts; KubeRay derives longer names from a RayJob's name."""
_PATTERN_HELP = "name of the RayJob that is copied; it must be suspended"
_NAME_HELP = "of the copy: one for each time that is scheduled, such as the name of the CronJob's Job"
_OWNER_HELP = "the Job that this pod is of: when it goes, so does the RayJob, with its cluster"
_GOOD_HELP = "that end this command with 0; default: %(default)s"
_POLL_HELP = "seconds between two looks at the job; default: %(default)g"
_PATIENCE_HELP = "seconds for which an API that does not answer is asked again; default: %(default)g"
_ATTEMPTS_HELP = "how often a job that fails is created, all starts together; default: %(default)s"

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_EXIT_CODE = re.compile(r"failed with exit code (-?\d+)")


def run_rayjob(arguments: Sequence[str], _: object = None) -> dict[str, Any]:
    """Creates or finds the RayJob, and follows it to its end; returns the summary."""
    flags = _parser().parse_args(arguments)
    configure_logging(flags.log_level)
    if flags.max_attempts < 1 or flags.poll_s <= 0 or flags.patience_s < 0:
        raise ConfigError("--max-attempts and --poll-s must be positive, --patience-s not negative")
    if not _NAME.fullmatch(flags.name) or len(f"{flags.name}-{flags.max_attempts}") > MAX_NAME:
        raise ConfigError(
            f"--name {flags.name}: take small letters, digits and '-', a letter first, {MAX_NAME} at most with "
            f"'-{flags.max_attempts}' behind it"
        )
    rayjobs = RayJobObjects(flags.patience_s)
    owner = None if flags.owner_uid is None else owner_of(flags.name, flags.owner_uid)
    try:
        name = find_or_copy(rayjobs, flags.pattern, flags.name, owner, flags.max_attempts)
    except NoAnswerError as error:
        raise IncompleteError(f"{error}; the same command continues") from error
    except KeyboardInterrupt:
        raise StoppedError("stopped while the RayJob was looked for; the next start finds the RayJob") from None
    try:
        return follow(rayjobs, name, flags.poll_s, flags.good_exit_codes)
    except KeyboardInterrupt:
        return _left(name, "stopped by a signal; the RayJob goes on; the same command continues")
    except NoAnswerError as error:
        return _left(name, f"{error}; the same command continues")


def find_or_copy(
    rayjobs: RayJobObjects, pattern: str, base: str, owner: dict[str, Any] | None, max_attempts: int
) -> str:
    """Returns the name of the RayJob to follow, which is the first attempt that has not failed.

    An attempt that does not exist is created. Once all attempts are used up, the last attempt is followed.

    Raises:
        ConfigError: There is no such pattern, or a RayJob of this name is no copy of the pattern.
    """

    def find(name: str) -> AttemptState | None:
        rayjob = rayjobs.find(name)
        if rayjob is None:
            return None
        if rayjob["metadata"].get("labels", {}).get(PATTERN_LABEL) != pattern:
            raise ConfigError(f"RayJob {name} is no copy of {pattern}: give another --name")
        end = end_of(rayjob)
        if end is None:
            logger.info("rayjob.found name=%s: the RayJob exists since an earlier start, and is followed", name)
            return "running"
        if end["exit_code"] == 0:
            logger.info("rayjob.was_done name=%s: to run the RayJob once more, give another --name", name)
            return "done"
        # The exit code is logged, since an earlier follower may have missed the end of the job, and the next attempt
        # does not find a drift of the data set (exit code 8) again.
        logger.warning("rayjob.ended_before name=%s exit_code=%d", name, end["exit_code"])
        return "failed"

    def create(name: str, attempt: int) -> bool:
        is_new = rayjobs.create(copy_of(_pattern(rayjobs, pattern), name, owner))
        if is_new:
            logger.info("rayjob.created name=%s attempt=%d", name, attempt)
        return is_new

    name, are_used_up = find_or_create(base, max_attempts, find, create)
    if are_used_up:
        logger.warning("rayjob.no_more_attempts name=%s: --max-attempts %d are used up", name, max_attempts)
    return name


def follow(rayjobs: RayJobObjects, name: str, poll_s: float, good: Sequence[int]) -> dict[str, Any]:
    """Returns the summary of the RayJob once the RayJob has ended.

    Args:
        good: Exit codes of the job that end this command with 0.
    """
    logged = ""
    while True:
        rayjob = rayjobs.find_again(name)
        if rayjob is None:
            return _left(name, "it was deleted; the same command continues")
        end = end_of(rayjob)
        if end is not None:
            if end["error"]:
                print(f"error: RayJob {name}: {end['error']}", file=sys.stderr, flush=True)
            is_good = end["exit_code"] in good
            return {
                "rayjob": name,
                **end,
                "job_exit_code": end["exit_code"],
                "exit_code": end["exit_code"] * (not is_good),
            }
        if (state := _state(rayjob)) != logged:
            logger.info("rayjob.state name=%s %s", name, state)
            logged = state
        time.sleep(poll_s)


def end_of(rayjob: dict[str, Any]) -> dict[str, Any] | None:
    """Returns `status`, `job_status`, `exit_code`, `summary` and `error` of a RayJob that has ended.

    Returns None if the RayJob has not ended.
    """
    status = rayjob.get("status") or {}
    if status.get("jobDeploymentStatus") not in ("Complete", "Failed", "ValidationFailed"):
        return None
    job_status, reason = status.get("jobStatus") or None, status.get("reason") or ""
    message = status.get("message") or ""
    of_job = last_line_of_job(message)
    if job_status == "SUCCEEDED":
        return {"status": "done", "job_status": job_status, "exit_code": 0, "summary": of_job, "error": None}
    error = " ".join(f"{reason or job_status}: {message}".split())
    if job_status == "FAILED":
        # Ray's message gives the entrypoint's exit code before the last lines of its log.
        found = _EXIT_CODE.search(message)
        exit_code = exit_code_of(of_job, None if found is None else int(found[1]))
    elif "ValidationFailed" in (reason, status["jobDeploymentStatus"]):
        exit_code = ConfigError.exit_code
    else:
        # The job was stopped, ran out of time, or lost its cluster: all published files are whole, and the next
        # attempt continues.
        exit_code = IncompleteError.exit_code
    return {"status": "failed", "job_status": job_status, "exit_code": exit_code, "summary": of_job, "error": error}


def copy_of(pattern: dict[str, Any], name: str, owner: dict[str, Any] | None) -> dict[str, Any]:
    """Returns a copy of the pattern that has another name and is not suspended.

    The copy keeps the annotations that the operator reads (`ray.io/...`), but no annotations of other tools, such as
    `kubectl apply`.
    """
    metadata = pattern["metadata"]
    annotations = {name: it for name, it in metadata.get("annotations", {}).items() if name.startswith("ray.io/")}
    labels = {**metadata.get("labels", {}), PATTERN_LABEL: metadata["name"]}
    owners = {} if owner is None else {"ownerReferences": [owner]}
    return {
        "apiVersion": pattern["apiVersion"],
        "kind": pattern["kind"],
        "metadata": {"name": name, "labels": labels, "annotations": annotations, **owners},
        "spec": {**pattern["spec"], "suspend": False},
    }


def owner_of(job: str, uid: str) -> dict[str, Any]:
    """Returns an owner reference to a Job of Kubernetes."""
    return {"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": uid}


def _pattern(rayjobs: RayJobObjects, name: str) -> dict[str, Any]:
    pattern = rayjobs.find(name)
    if pattern is None:
        raise ConfigError(f"there is no RayJob {name} to copy: kubectl apply -k has it")
    if not pattern["spec"].get("suspend"):
        raise ConfigError(f"RayJob {name} is not suspended, so it is a run and no pattern")
    return pattern


def _state(rayjob: dict[str, Any]) -> str:
    status = rayjob.get("status") or {}
    return " ".join(f"{key}={status.get(key) or '-'}" for key in ("jobDeploymentStatus", "jobStatus", "rayClusterName"))


def _left(name: str, why: str) -> dict[str, Any]:
    """Returns the summary of a RayJob that this process no longer follows, for the reason `why`."""
    print(f"error: RayJob {name}: {why}", file=sys.stderr, flush=True)
    return {
        "rayjob": name,
        "status": "left",
        "job_status": None,
        "exit_code": IncompleteError.exit_code,
        "summary": None,
        "error": why,
    }


def _codes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError("must be numbers such as 0,10") from None


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        description=(__doc__ or "").partition("\n")[0],
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--pattern", required=True, metavar="NAME", help=_PATTERN_HELP)
    add("--name", required=True, metavar="NAME", help=_NAME_HELP)
    add("--owner-uid", metavar="UID", help=_OWNER_HELP)
    add("--good-exit-codes", type=_codes, default="0,10", metavar="N,N", help=_GOOD_HELP)
    add("--poll-s", type=float, default=15.0, metavar="N", help=_POLL_HELP)
    add("--patience-s", type=float, default=600.0, metavar="N", help=_PATIENCE_HELP)
    add("--max-attempts", type=int, default=10, metavar="N", help=_ATTEMPTS_HELP)
    add("--log-level", choices=("debug", "info", "warning"), default="info")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(run_rayjob, sys.argv[1:]))
