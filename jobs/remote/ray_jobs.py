"""The jobs of a Ray cluster, read and submitted through its dashboard, which may not answer for a while.

Ray's client waits for an answer without a bound. So each request runs in a thread, which is abandoned when the request
takes too long. A request is repeated for a while if there is no connection or no answer, or if the server has an error
of its own (HTTP status 500 and above).
"""

import os
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from ray.exceptions import RayError
from ray.job_submission import JobDetails, JobSubmissionClient

from jobs.remote.attempts import Answer, NoAnswerError, ask_until_answered
from pipeline.errors import ConfigError

_ANSWER_S = 30.0
# A submission uploads the working directory, and waits for the node that starts the job.
_SUBMIT_S = 600.0
# Ray's client raises a RuntimeError that names the HTTP status in its text alone.
_STATUS_CODE = re.compile(r"status code (\d{3})")
_ADDRESS_HELP = (
    "is its head up, is this the dashboard's address (http://HOST:8265), and does anything on the way keep it away?"
)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Returns None, so that no redirect is followed: a login page is no answer of the dashboard."""


_PLAINLY = urllib.request.build_opener(_NoRedirects)


class RayJobs:
    """The jobs of one cluster.

    Raises:
        ConfigError: In each method: the cluster refuses the request for good, for instance since the token is wrong.
        NoAnswerError: In each method: the dashboard gave no answer for `patience_s` seconds.
    """

    def __init__(self, address: str, patience_s: float) -> None:
        if not address.startswith(("http://", "https://")):
            raise ConfigError(
                f"--address {address or '(none)'}: give the address of the dashboard, such as http://HOST:8265"
            )
        self._address = address.rstrip("/")
        self._patience_s = patience_s
        # Ray's client prefers RAY_ADDRESS to its argument, and RAY_API_SERVER_ADDRESS to both.
        os.environ["RAY_API_SERVER_ADDRESS"] = self._address
        self._client: JobSubmissionClient = self._patiently(lambda: JobSubmissionClient(self._address))

    def answers_anybody(self) -> bool:
        """Returns whether the dashboard lists its jobs without a token. If so, anybody may submit jobs there."""

        def ask() -> bool:
            try:
                with _PLAINLY.open(f"{self._address}/api/jobs/", timeout=_ANSWER_S):
                    return True
            except urllib.error.HTTPError as error:
                with error:
                    if error.code >= 500:
                        raise ConnectionError(f"HTTP {error.code}") from error
                    return False

        return self._patiently(ask)

    def find(self, submission_id: str) -> JobDetails | None:
        """Returns the details of a job; None if the cluster knows no job of this name."""

        def ask() -> JobDetails | None:
            try:
                return self._client.get_job_info(submission_id)
            except RuntimeError as error:
                if _status_code(error) == 404:
                    return None
                raise

        return self._patiently(ask)

    def submit(self, submission_id: str, entrypoint: str, runtime_env: dict[str, Any]) -> bool:
        """Submits a job; returns False if the cluster has a job of this name already.

        Another start has then submitted the job, or this start has submitted the job and the answer was lost.
        """

        def ask() -> bool:
            try:
                self._client.submit_job(entrypoint=entrypoint, submission_id=submission_id, runtime_env=runtime_env)
            except (OSError, RuntimeError):
                if self.find(submission_id) is None:
                    raise
                return False
            return True

        return self._patiently(ask, answer_s=_SUBMIT_S)

    def log(self, submission_id: str, patience_s: float | None = None) -> str:
        """Returns the log of the job so far: stdout and stderr in the order of writing."""
        return self._patiently(lambda: self._client.get_job_logs(submission_id), patience_s=patience_s)

    def stop(self, submission_id: str) -> None:
        """Asks Ray to stop the job: Ray sends SIGTERM, and three seconds later SIGKILL."""
        self._patiently(lambda: self._client.stop_job(submission_id))

    def _patiently(
        self, ask: Callable[[], Answer], *, answer_s: float | None = None, patience_s: float | None = None
    ) -> Answer:
        def ask_once() -> Answer:
            try:
                return _answer_within(ask, answer_s or _ANSWER_S)
            except (OSError, RuntimeError, ValueError, KeyError, RayError) as error:
                reason = _sentence(error)
                if not _may_pass(error):
                    raise ConfigError(f"{self._address}: {reason}") from error
                raise NoAnswerError(f"{self._address}: {reason}; {_ADDRESS_HELP}", reason) from error

        patience_s = self._patience_s if patience_s is None else patience_s
        return ask_until_answered(ask_once, patience_s, "cluster.no_answer")


def _answer_within(ask: Callable[[], Answer], answer_s: float) -> Answer:
    answer = Future[Answer]()

    def work() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:  # `answer.result` raises it again in the caller's thread
            answer.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        return answer.result(answer_s)
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"no answer in {answer_s:g} s") from error


def _may_pass(error: Exception) -> bool:
    status = _status_code(error)
    if status is not None:
        return status >= 500
    # Malformed addresses and answers that are no JSON raise errors that are both OSError and ValueError.
    return isinstance(error, OSError) and not isinstance(error, ValueError)


def _status_code(error: Exception) -> int | None:
    response = getattr(error, "response", None)
    if response is not None:
        return int(response.status_code)
    found = _STATUS_CODE.search(str(error))
    return int(found[1]) if found else None


def _sentence(error: Exception) -> str:
    """Returns the text of an error in one line: its last line, such as the last line of a traceback from the server."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" .")]
    return (lines[-1] if lines else type(error).__name__)[:500].rstrip(".")
