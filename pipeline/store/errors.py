"""Errors of stores: one hierarchy of classes for all kinds of stores.

    StoreError             a failure that lasts: no space, a read-only disk
    +-- NotFoundError      there is no such object, or no such bucket
    +-- ChangedError       the object does not have the ETag that was asked for
    +-- ExistsError        the write was create-only, and the name is taken
    +-- DeniedError        credentials are missing or wrong, or do not allow the request
    +-- UnaddressableError no request can name the object
    +-- TransientError     a failure that may pass: no answer, an incomplete answer, an overloaded store

No store error is an `OSError`: tarfile, gzip and Parquet readers take an `OSError` for a broken file, and a store that
cannot be reached must not look like a broken file. The message of a store error is one short line with the URI, and
never holds credentials or signatures.
"""

import errno
import re
from typing import TypeGuard


class StoreError(Exception):
    """A failure that lasts: no space, a read-only disk."""


class NotFoundError(StoreError):
    """There is no such object, or no such bucket."""


class ChangedError(StoreError):
    """The object does not have the ETag that was asked for."""


class ExistsError(StoreError):
    """The write was create-only, and the name is taken."""


class DeniedError(StoreError):
    """Credentials are missing or wrong, or do not allow the request.

    Attributes:
        is_permission: True if the store knows the account but does not allow the request, or gives no reason.
    """

    def __init__(self, message: str, is_permission: bool = False) -> None:
        super().__init__(message)
        self.is_permission = is_permission


class UnaddressableError(StoreError):
    """No request can name the object: its key has `.` or `..` parts, control characters, or is not UTF-8."""


class TransientError(StoreError):
    """A failure that may pass: no answer, an incomplete answer, or an overloaded store.

    `pipeline.store.retry` repeats the request; callers of `StorePath` see the error after the last attempt.

    Attributes:
        wait_s: Seconds that the store asks to wait before the next request.
    """

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


_MAX_REASON_CHARS = 240
_REASONS: dict[type[StoreError], str] = {
    NotFoundError: "not found",
    ChangedError: "does not have the ETag asked for",
    ExistsError: "exists already",
}

_DENIED_ERRNOS = {errno.EACCES, errno.EPERM}
_TRANSIENT_ERRNOS = {errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT}

_TRANSIENT_STATUSES = {408, 429, 500, 502, 503, 504}
# Codes of answers while another conditional request on the same name is under way; a repeated request is answered
# definitely.
_CONFLICT_CODES = {"ConditionalRequestConflict", "OperationAborted"}
# The body that arrived is not the body that the client sent: the network changed it or cut it off.
_DAMAGED_CODES = {"IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"}
_THROTTLING_CODES = {"SlowDown", "ThrottlingException", "TooManyRequests", "RequestLimitExceeded"}
_TRANSIENT_CODES = _CONFLICT_CODES | _DAMAGED_CODES | _THROTTLING_CODES | {"RequestTimeout", "InternalError"}
_THROTTLING_STATUSES = {429, 503}
# Pause after a throttled request, if the answer names no pause or the client does not hand out the header.
_THROTTLED_S = 0.5
_DENIED_CODES = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId", "AccessDenied"}
_REGION_CODES = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
_BY_NAME: dict[str, type[StoreError]] = {
    "FileNotFoundError": NotFoundError,
    "PreconditionError": ChangedError,
    "NotModifiedError": ChangedError,
    "AlreadyExistsError": ExistsError,
    "PermissionDeniedError": DeniedError,
    "UnauthenticatedError": DeniedError,
}

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([\w.]{1,80})</Code>")
_MESSAGE = re.compile(r"<Message>(.*?)</Message>", re.DOTALL)
_HOST = re.compile(r"Error performing \w+ (https?://[^/\s?@]+)[/\s?]")
_FAULT = re.compile(r"HttpError \{\s*kind: (\w+)")
_CAUSE = re.compile(r'(?:message|error): "([^"]{1,120})"|\b(TimedOut|IncompleteBody|InvalidCertificate|BadScheme)\b')
_SECRETS = re.compile(
    r"(?i)\b(x-amz-[\w-]+|aws_?\w*?key_?(?:id)?|authorization|signature|credential|\w*_?token|sig|password)\b"
    r"([\"']?\s*[=:>]\s*[\"']?)(?:(?:AWS4-HMAC-SHA256|Bearer|Basic)\s+)?[^\s&<>,;\"']+"
)
_KEY_ID = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{8,}\b")
_QUERY = re.compile(r"(https?://)(?:[^/\s@]*@)?([^\s?]*)(?:\?\S*)?")


def from_os_error(uri: str, error: OSError) -> StoreError:
    """Returns the store error for an error of the local disk."""
    kind: type[StoreError] = StoreError
    if error.errno == errno.ENOENT:
        kind = NotFoundError
    elif error.errno == errno.EEXIST:
        kind = ExistsError
    elif error.errno in _DENIED_ERRNOS:
        kind = DeniedError
    elif error.errno in _TRANSIENT_ERRNOS:
        kind = TransientError
    return kind(f"{uri}: {_REASONS.get(kind) or error.strerror or type(error).__name__}")


def from_client_error(uri: str, error: BaseException) -> StoreError:
    """Returns the store error for an error of the object-store client.

    The texts of the client's errors hold the URL of the request, the whole answer and a dump of internal structures. Of
    these texts, the store error repeats only the status, the store's code and message, or the cause of a broken
    connection.
    """
    text = str(error)
    if (status := _STATUS.search(text)) is not None:
        code, message = _CODE.search(text), _MESSAGE.search(text)
        return from_answer(
            uri, int(status[1]), code[1] if code else "", message[1] if message else "", type(error).__name__
        )
    if "redirect without LOCATION" in text:
        return from_answer(uri, 301, "PermanentRedirect", "", type(error).__name__)
    kind = _BY_NAME.get(type(error).__name__, StoreError)
    fault = _FAULT.search(text)
    if fault is not None or "Requested" in text:
        # The client's error for an answer that is shorter than the requested range holds the word `Requested`.
        causes = [a or b for a, b in _CAUSE.findall(text)]
        permanent = (fault is not None and fault[1] == "Unknown") or "Certificate" in text or "BadScheme" in causes
        host = _HOST.search(text)
        reason = f"the connection{' to ' + host[1] if host else ''} failed" if fault else "the answer was short"
        reason = ": ".join([reason, *causes[-1:]])
        return (StoreError if permanent else TransientError)(f"{uri}: {redact(reason)}")
    return kind(f"{uri}: {_REASONS.get(kind) or redact(text.partition(chr(10))[0])}")


def from_answer(
    uri: str, status: int, code: str, message: str, name: str = "", retry_after: str | None = None
) -> StoreError:
    """Returns the store error for an HTTP answer.

    Args:
        status: HTTP status.
        code: The store's code for the error; empty if the answer has no body, as after a HEAD request.
        message: The store's message.
        name: Class name of the client's error, which depends on the kind of request.
        retry_after: Value of the header Retry-After; None if the answer has no such header, or if the client does not
            hand out headers.
    """
    said = redact(": ".join(part for part in (f"{status} {code}".strip(), message) if part))
    if status == 404 and (name != "PreconditionError" or code == "NoSuchBucket"):
        return NotFoundError(f"{uri}: {'the bucket does not exist' if code == 'NoSuchBucket' else 'not found'}")
    if code in _REGION_CODES or status in (301, 307, 308):
        return StoreError(f"{uri}: {said}; the bucket lies in another region: set AWS_REGION, or the profile's region")
    if status in (401, 403) or code in _DENIED_CODES:
        # The answer to a HEAD has no body and so no code.
        return DeniedError(f"{uri}: {said}", status == 403 and code in ("", "AccessDenied"))
    if status in _TRANSIENT_STATUSES or code in _TRANSIENT_CODES:
        throttled = status in _THROTTLING_STATUSES or code in _THROTTLING_CODES
        wait_s = _THROTTLED_S if throttled else 0.0
        return TransientError(f"{uri}: {said}", float(retry_after) if _is_seconds(retry_after) else wait_s)
    kind = _BY_NAME.get(name, StoreError)
    return kind(f"{uri}: {_REASONS.get(kind, said)}")


def naming(uri: str, error: StoreError, permission: str) -> StoreError:
    """Returns the error; if S3 refused the request, the message also names the permission that the request needs."""
    if not (permission and uri.startswith("s3://") and isinstance(error, DeniedError) and error.is_permission):
        return error
    return DeniedError(f"{error} (it takes {permission})", is_permission=True)


def _is_seconds(retry_after: str | None) -> TypeGuard[str]:
    # By the standard the header may be a date; no object store is known to send one.
    return retry_after is not None and re.fullmatch(r"\s*\d{1,6}\s*", retry_after) is not None


def redact(text: str) -> str:
    """Returns the text as one bounded line, without query strings, key ids, signatures and tokens."""
    text = _KEY_ID.sub("(key id)", _QUERY.sub(r"\1\2", " ".join(text.split())))
    text = _SECRETS.sub(r"\1\2(hidden)", text)
    return text if len(text) <= _MAX_REASON_CHARS else text[: _MAX_REASON_CHARS - 4] + " ..."
