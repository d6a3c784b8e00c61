"""A webhook at the end of a run: a POST of JSON, repeated for half a minute at most, which changes nothing of the run.

The request has these headers beside its body:

    Idempotency-Key: <id>             one for all attempts of one notification
    X-Pvtv2-Timestamp: <seconds>      Unix time of this attempt
    X-Pvtv2-Signature: sha256=<hex>   where there is a secret: HMAC-SHA256 under it of "<id>.<seconds>." and the body

A receiver computes the signature over the bytes that came, before it parses them, and compares in constant time
(`hmac.compare_digest`). It refuses a timestamp that is minutes away from its clock, and acts once on each id: then a
request that somebody recorded is worth nothing to him, since all three are signed.
docs/operate/notifications.md has the code.

A webhook's URL is a secret itself: only its host is ever logged.
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
    """How often a notification is tried, and for how long.

    Attributes:
        attempts: at most.
        attempt_s: one attempt, from looking up the host to the last header of the answer.
        total_s: all of them, with the pauses between.
        first_pause_s: twice as long after each attempt, and jittered; longer where the receiver asks for it.
    """

    attempts: int = 5
    attempt_s: float = 10.0
    total_s: float = 30.0
    first_pause_s: float = 1.0


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why an attempt failed; `wait_s` is how long the receiver wants to be left alone, at least."""

    error: str
    may_pass: bool
    wait_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """Where notifications go.

    Attributes:
        url: http or https, without user and password.
        secret: what they are signed under; None leaves them unsigned.
        clock, sleep: those of `time`, but for tests.
    """

    url: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)
    patience: Patience = Patience()
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def __post_init__(self) -> None:
        # Never repeated in what is said: whoever knows a webhook's URL may post to it.
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
        """All of the URL that may be shown."""
        return urlsplit(self.url).hostname or ""

    def send(self, body: Mapping[str, Any]) -> bool:
        """True if the receiver answered with a 2xx status. Raises nothing: a failure is a line in the log.

        Repeated are connections that fail or time out, and the statuses 408, 429 and 5xx. Redirects are not followed.
        """
        began, attempt = self.clock(), 0
        try:
            # What JSON has no word for, not a number and the infinities, becomes null.
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
            # Jittered, so that runs that end together do not come back together.
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
        """Why the attempt failed; None if it did not."""
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
        # A thread, since the timeouts of sockets begin again with every byte, and looking up a host has none.
        threading.Thread(target=lambda: answers.put(_post(request, timeout_s)), name="notify", daemon=True).start()
        try:
            return answers.get(timeout=timeout_s)
        except queue.Empty:
            return _Failure("TimeoutError", may_pass=True)


def signature(secret: str, notification_id: str, timestamp: str, body: bytes) -> str:
    """The hex digits of a notification's signature."""
    signed = f"{notification_id}.{timestamp}.".encode() + body
    return hmac.new(secret.encode("utf-8", "surrogateescape"), signed, hashlib.sha256).hexdigest()


def webhook_from(flags_url: str | None, environ: Mapping[str, str]) -> Webhook | None:
    """The webhook that `--notify-url` or the environment asks for; None, the default, if neither does.

    Raises:
        ConfigError: the URL is of another kind.
    """
    url = flags_url or environ.get(URL_VARIABLE)
    return Webhook(url=url, secret=environ.get(SECRET_VARIABLE) or None) if url else None


def run_ended(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The body that tells of a run's end: a sentence for a chat, and the summary as on its last line of stdout."""
    return {"event": "run.ended", "text": headline(summary), "summary": dict(summary)}


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Nothing: another address than the one configured is told nothing."""


def _post(request: urllib.request.Request, timeout_s: float) -> _Failure | None:
    """Sends once. Proxies are those of the environment, as urllib has it."""
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
    except Exception as error:  # of any kind: no answer is so odd that a finished run should fail over it
        return _Failure(_shown(error), may_pass=False)


def _shown(error: object) -> str:
    """An error without what it quotes, which may be the URL: its kind, and the system's own words."""
    words = error.strerror if isinstance(error, OSError) else None
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _wait_s(retry_after: str | None) -> float:
    """Seconds that a `Retry-After` asks for, which is a number of them or a date; 0 if it is neither."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, IndexError, OverflowError):
        return 0.0
