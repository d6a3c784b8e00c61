"""The webhook that is notified of a run's end: a POST of JSON, repeated for at most half a minute.

A notification that fails changes neither the run's summary nor the exit code. A request has these headers:

    Idempotency-Key: <id>             the same for all attempts at one notification
    X-Pvtv2-Timestamp: <seconds>      Unix time of this attempt
    X-Pvtv2-Signature: sha256=<hex>   only with a secret: HMAC-SHA256 by that secret of "<id>.<seconds>." and the body

A receiver computes the signature over the received bytes before parsing them, and compares signatures in constant time
(`hmac.compare_digest`). A receiver refuses a timestamp that is minutes away from the receiver's clock, and acts once on
each id. A recorded request is then useless to an attacker, since the signature covers id, timestamp and body.
docs/operate/notifications.md has the code.

The URL of a webhook is a secret too: only the host is ever logged.
"""

import email.utils
import hashlib
import hmac
import http.client
import json
import logging
import queue
import random
import re
import ssl
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from jobs.cli.headline import headline
from pipeline.errors import ConfigError

logger = logging.getLogger(__name__)

URL_VARIABLE = "PVTV2_NOTIFY_URL"
SECRET_VARIABLE = "PVTV2_NOTIFY_SECRET"

_PASSING_STATUSES = (408, 429)


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How often a notification is attempted, and for how long.

    Attributes:
        attempts: Largest number of attempts.
        attempt_s: Seconds that one attempt may take, from looking up the host to the last header of the answer.
        total_s: Seconds that all attempts may take, with the pauses between them.
        first_pause_s: Seconds of the pause after the first attempt. Each pause is twice as long as the pause before,
            shortened by a random factor, and longer if the receiver asks for a longer pause.
    """

    attempts: int = 5
    attempt_s: float = 10.0
    total_s: float = 30.0
    first_pause_s: float = 1.0


@dataclass(frozen=True, slots=True)
class _Failure:
    """The reason why an attempt failed, and the seconds that the receiver asks to wait before the next attempt."""

    error: str
    may_pass: bool
    wait_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """The receiver of notifications.

    Attributes:
        url: URL with the scheme http or https, without user and password.
        secret: Key of the signatures; None leaves notifications unsigned.
        patience: Bounds of the attempts at one notification.
        clock, sleep: `time.monotonic` and `time.sleep`; tests replace these functions.
    """

    url: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)
    patience: Patience = Patience()
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def __post_init__(self) -> None:
        # The messages never quote the URL: anybody who knows the URL of a webhook may post to it.
        try:
            parts = urlsplit(self.url)
            is_usable = bool(parts.scheme in ("http", "https") and parts.hostname and parts.port != 0)
        except ValueError:
            is_usable = False
        if not is_usable or re.search(r"[^\x21-\x7e]", self.url):
            raise ConfigError("the URL of --notify-url must be one of http:// or https://, in ASCII and without spaces")
        if "@" in parts.netloc:
            raise ConfigError("the URL of --notify-url must have no user and password; sign with a secret instead")

    @property
    def host(self) -> str:
        """Host of the URL, which is the only part that may be shown."""
        return urlsplit(self.url).hostname or ""

    def send(self, body: Mapping[str, Any]) -> bool:
        """Posts a notification; returns True if the receiver answered with a 2xx status.

        An attempt is repeated after a connection that failed or timed out, and after the statuses 408, 429 and 5xx.
        Redirects are not followed. A failure is logged and raises no error.
        """
        began, attempt = self.clock(), 0
        try:
            # JSON has no NaN and no infinities, so they become null.
            data = json.dumps(json.loads(json.dumps(body), parse_constant=lambda _: None)).encode()
        except (TypeError, ValueError, RecursionError) as error:
            return self._failed(attempt, type(error).__name__)
        notification_id = uuid.uuid4().hex
        while True:
            attempt += 1
            left_s = max(0.1, self.patience.total_s - (self.clock() - began))
            failure = self._attempt(data, notification_id, min(self.patience.attempt_s, left_s))
            if failure is None:
                logger.info("notify.sent host=%s attempts=%d", self.host, attempt)
                return True
            # Pauses are jittered, so that runs that end at the same time do not repeat their requests at the same time.
            pause_s = self.patience.first_pause_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)
            pause_s = max(pause_s, failure.wait_s)
            is_last = attempt >= self.patience.attempts or self.clock() - began + pause_s >= self.patience.total_s
            if not failure.may_pass or is_last:
                return self._failed(attempt, failure.error)
            self.sleep(pause_s)

    def _failed(self, attempts: int, error: str) -> bool:
        logger.warning("notify.failed host=%s attempts=%d error=%s", self.host, attempts, error)
        return False

    def _attempt(self, data: bytes, notification_id: str, timeout_s: float) -> _Failure | None:
        """Posts the body once; returns the failure, or None if the attempt succeeded."""
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "pvtv2-batch",
            "Idempotency-Key": notification_id,
            "X-Pvtv2-Timestamp": timestamp,
        }
        if self.secret is not None:
            headers["X-Pvtv2-Signature"] = f"sha256={signature(self.secret, notification_id, timestamp, data)}"
        request = urllib.request.Request(self.url, data, headers, method="POST")
        answers = queue.SimpleQueue[_Failure | None]()
        # A thread bounds the whole attempt: a socket's timeout begins again with every byte, and looking up a host has
        # no timeout.
        threading.Thread(target=lambda: answers.put(_post(request, timeout_s)), name="notify", daemon=True).start()
        try:
            return answers.get(timeout=timeout_s)
        except queue.Empty:
            return _Failure("TimeoutError", may_pass=True)


def signature(secret: str, notification_id: str, timestamp: str, body: bytes) -> str:
    """Returns the hex digits of a notification's signature."""
    signed = f"{notification_id}.{timestamp}.".encode() + body
    return hmac.new(secret.encode("utf-8", "surrogateescape"), signed, hashlib.sha256).hexdigest()


def webhook_from(flags_url: str | None, environ: Mapping[str, str]) -> Webhook | None:
    """Returns the webhook that `--notify-url` or the environment names; None if neither names one.

    Raises:
        ConfigError: The URL is no http or https URL, or has a user and password.
    """
    url = flags_url or environ.get(URL_VARIABLE)
    return Webhook(url=url, secret=environ.get(SECRET_VARIABLE) or None) if url else None


def run_ended(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the body of the webhook: a sentence for a chat, and the summary from the last line of stdout."""
    return {"event": "run.ended", "text": headline(summary), "summary": dict(summary)}


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Returns None, so that no redirect is followed: only the configured address gets a notification."""


def _post(request: urllib.request.Request, timeout_s: float) -> _Failure | None:
    """Posts a request once, through the proxies that the environment names; returns the failure, or None."""
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=timeout_s):
            return None
    except urllib.error.HTTPError as error:
        with error:
            may_pass = error.code in _PASSING_STATUSES or error.code >= 500
            return _Failure(f"HTTP {error.code}", may_pass, _wait_s(error.headers.get("Retry-After")))
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        return _Failure(_shown(cause), may_pass=not isinstance(cause, ssl.SSLCertVerificationError))
    except Exception as error:  # no error of a notification may fail a finished run
        return _Failure(_shown(error), may_pass=False)


def _shown(error: object) -> str:
    """Returns an error's type and the system's message, but no text of the error, which may quote the URL."""
    words = error.strerror if isinstance(error, OSError) else None
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _wait_s(retry_after: str | None) -> float:
    """Returns the seconds that a header `Retry-After` asks for, by a number or by a date; 0 for any other text."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, IndexError, OverflowError):
        return 0.0
