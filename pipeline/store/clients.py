"""Clients of object stores: obstore for requests, boto3 for endpoint, region, credentials and listings of S3.

Clients are kept, and later requests use them again. The threads of obstore do not survive a fork.
"""

import functools
import io
import os
import threading
import time
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import boto3
from botocore import UNSIGNED
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ConfigNotFound,
    ConfigParseError,
    ProfileNotFound,
    ReadTimeoutError,
    ResponseStreamingError,
)
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store
from urllib3.exceptions import HTTPError

from pipeline.errors import ConfigError
from pipeline.store.config import StoreConfig, check_endpoint
from pipeline.store.errors import DeniedError, StoreError, UnaddressableError, redact
from pipeline.store.retry import BOTO_ASKS_ONCE, client_retries
from pipeline.store.uris import is_addressable, split_uri


class _Aws(NamedTuple):
    session: boto3.Session
    client: Any
    region: str
    credentials: Boto3CredentialProvider | None


_PART_BYTES = 2**16
# An upload cannot be split, so it has `timeout_s` for each part of this size.
_UPLOAD_BYTES = 32 * 2**20

_clients_lock = threading.Lock()
# Process id of the process that made the clients; 0 before the first client is made.
_client_pid = 0


def open_client(
    uri: str, config: StoreConfig, *, upload_bytes: int = 0, asks_again: bool = False
) -> tuple[ObjectStore, str]:
    """Returns the client for the bucket of a URI, and the key of the URI.

    Requests to one bucket with the same account and time limits share one client.

    Args:
        upload_bytes: Size in bytes of the upload that the client is for; a larger upload gets more time.
        asks_again: True if the client itself repeats a failing request until the deadline; False if the client sends
            each request once.

    Raises:
        ConfigError: The profile is unknown, or the AWS configuration cannot be used.
        DeniedError: There are no credentials.
        UnaddressableError: The key cannot be addressed.
        StoreError: The process was forked from a process that has clients.
    """
    scheme, bucket, key = split_uri(uri)
    if not is_addressable(key):
        raise UnaddressableError(
            f"{uri!r}: a key with empty parts, '.' or '..' parts or control characters cannot be addressed"
        )
    if _client_pid not in (0, os.getpid()):
        # The threads of the client exist in the parent alone, so the first request would wait for ever.
        raise StoreError(f"{uri}: object stores cannot be used in a forked process; start it by spawn")
    timeout_s = config.timeout_s * (1 + upload_bytes // _UPLOAD_BYTES)
    # boto3 needs a while to make a client, and does not allow several threads to make clients at the same time.
    with _clients_lock:
        return _client(scheme, bucket, config.account, timeout_s, config.deadline_s if asks_again else 0.0), key


def forget_clients() -> None:
    """Forgets all clients, so that the next request sees changed credentials or another endpoint."""
    with _clients_lock:
        _client.cache_clear()
        _listing_client.cache_clear()
        _aws.cache_clear()


def listing_client(config: StoreConfig) -> Any:
    """Returns boto3's client for listings, and for keys that obstore cannot name; it sends each request once.

    All threads with the same account and timeout share one client.

    Raises:
        ConfigError: The profile is unknown, or the AWS configuration cannot be used.
        DeniedError: There are no credentials.
    """
    with _clients_lock:
        return _listing_client(config.account, config.timeout_s)


@functools.lru_cache(maxsize=64)
def _client(scheme: str, bucket: str, account: StoreConfig, timeout_s: float, deadline_s: float) -> ObjectStore:
    global _client_pid
    _client_pid = os.getpid()
    seconds = timedelta(seconds=timeout_s)
    client_options: Any = {"timeout": seconds, "connect_timeout": min(seconds, timedelta(seconds=10))}
    options: Any = {"client_options": client_options, "retry_config": client_retries(deadline_s)}
    if scheme != "s3":
        options |= {"skip_signature": True} if account.anonymous else {}
        return GCSStore(bucket, **options) if scheme == "gs" else AzureStore(bucket, **options)
    aws = _aws(account)
    client_options["allow_http"] = aws.client.meta.endpoint_url.startswith("http://")
    options |= {"skip_signature": True} if aws.credentials is None else {"credential_provider": aws.credentials}
    options |= _s3_address(bucket, aws.client.meta.endpoint_url, aws.region)
    # Each object gets a DELETE of its own: not every store knows the bulk request, and refusals of the bulk request
    # have another form.
    return S3Store(bucket, disable_bulk_delete=True, **options)


@functools.lru_cache(maxsize=8)
def _listing_client(account: StoreConfig, timeout_s: float) -> Any:
    aws = _aws(account)
    config = Config(
        signature_version=UNSIGNED if account.anonymous else None,
        connect_timeout=min(timeout_s, 10),
        read_timeout=timeout_s,
        retries=dict(BOTO_ASKS_ONCE),
        max_pool_connections=32,
    )
    client = aws.session.client("s3", region_name=aws.region, endpoint_url=account.endpoint_url, config=config)
    # `_endpoint` is private, but botocore has no public way to its HTTP session, which knows the proxies, the CA bundle
    # and the client certificate of the AWS configuration. A second session would have to find all of them again.
    client.meta.events.register("before-send.s3", functools.partial(_send, client._endpoint.http_session, timeout_s))
    return client


def _send(http_session: Any, timeout_s: float, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
    """Sends a request and returns the whole answer, or raises an error after `timeout_s`.

    The function replaces that of botocore, whose timeout starts again with every byte that arrives.
    """
    started = time.monotonic()
    request.stream_output = True
    response = http_session.send(request)
    parts = []
    try:
        while part := response.raw.read1(_PART_BYTES):
            parts.append(part)
            if time.monotonic() - started > timeout_s:
                response.raw.close()
                raise ReadTimeoutError(endpoint_url=request.url)
    except HTTPError as error:
        raise ResponseStreamingError(error=error) from None
    return AWSResponse(request.url, response.status_code, response.headers, _Received(parts))


class _Received:
    """The body of an answer that was received completely, in the form that botocore expects."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts
        self._unread = io.BytesIO(b"".join(parts))

    def read(self, size: int | None = None) -> bytes:
        """Returns the next bytes of the body."""
        return self._unread.read(size)

    def stream(self) -> list[bytes]:
        """Returns the body in parts."""
        return self._parts


def _s3_address(bucket: str, endpoint_url: str, region: str) -> dict[str, Any]:
    """Returns the address settings of a client for S3.

    The bucket is part of the host name on AWS, and part of the path on any other endpoint. Both endpoint settings are
    set, since the client would take a missing setting from the environment.
    """
    url, in_host = endpoint_url.rstrip("/"), False
    if urlsplit(url).hostname in ("s3.amazonaws.com", f"s3.{region}.amazonaws.com"):
        # The certificate of AWS covers one label before its domain, so a bucket with a dot goes into the path.
        in_host = "." not in bucket
        url = f"https://{bucket + '.' if in_host else ''}s3.{region}.amazonaws.com"
    return {"endpoint": url, "aws_endpoint_url_s3": url, "region": region, "virtual_hosted_style_request": in_host}


@functools.lru_cache(maxsize=8)
def _aws(account: StoreConfig) -> _Aws:
    """Returns the session, client, region and credentials that boto3 finds for an account.

    Raises:
        ConfigError: The profile is unknown, or the AWS configuration cannot be used.
        DeniedError: There are no credentials.
    """
    try:
        session = boto3.Session(profile_name=account.profile)
        # boto3 reads AWS_DEFAULT_REGION only.
        region = os.environ.get("AWS_REGION") or session.region_name or "us-east-1"
        signing = Config(signature_version=UNSIGNED) if account.anonymous else None
        client = session.client("s3", region_name=region, endpoint_url=account.endpoint_url, config=signing)
        check_endpoint(client.meta.endpoint_url)
        if account.anonymous:
            return _Aws(session, client, region, None)
        if session.get_credentials() is not None:
            # The client asks for new credentials five minutes before `ttl` ends, and boto3 renews credentials that have
            # less than ten minutes left.
            return _Aws(session, client, region, Boto3CredentialProvider(session, ttl=timedelta(minutes=9)))
    except (ProfileNotFound, ConfigNotFound, ConfigParseError, ValueError) as error:
        raise ConfigError(f"the AWS configuration cannot be used: {redact(str(error))}") from None
    except BotoCoreError as error:
        raise DeniedError(f"no AWS credentials: {redact(str(error))}") from None
    raise DeniedError(
        "no AWS credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile, "
        "or ask for anonymous access to a public bucket"
    )
