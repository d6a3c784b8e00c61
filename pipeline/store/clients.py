"""Clients of object stores: obstore's for requests, with endpoint, region and credentials by boto3's chain.

Listings of S3 take boto3's own client. A client is kept for the next request; obstore's threads do not survive a fork.
"""

import functools
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
from pipeline.store.config import Account, check_endpoint
from pipeline.store.errors import DeniedError, StoreError, redact
from pipeline.store.retry import MAX_PAUSE_S
from pipeline.store.uris import is_addressable, split_uri


class _Aws(NamedTuple):
    session: boto3.Session
    client: Any
    region: str
    credentials: Boto3CredentialProvider | None


_PART_BYTES = 2**16

_clients_lock = threading.Lock()
# The process that made the first client.
_client_pid = 0


def open_client(
    uri: str, account: Account, *, timeout_s: float, deadline_s: float | None = None
) -> tuple[ObjectStore, str]:
    """The client of a URI's bucket, and the key; the same client for the same arguments.

    Args:
        timeout_s: how long one request may take.
        deadline_s: how long the client itself asks again; None leaves that to the caller.

    Raises:
        ConfigError: the profile is unknown, or the AWS configuration cannot be used.
        DeniedError: there are no credentials.
        StoreError: the key cannot be addressed, or the process was forked from one with clients.
    """
    scheme, bucket, key = split_uri(uri)
    if not is_addressable(key):
        raise StoreError(
            f"{uri!r}: a key with empty parts, '.' or '..' parts or control characters cannot be addressed"
        )
    if _client_pid not in (0, os.getpid()):
        # The client's threads did not come along, so that its first request would wait for ever.
        raise StoreError(f"{uri}: object stores cannot be used in a forked process; start it by spawn")
    # Making one takes boto3 a while, and it is not made for threads.
    with _clients_lock:
        return _client(scheme, bucket, account, timeout_s, deadline_s), key


def forget_clients() -> None:
    """Makes the next request build its client anew, after the environment's credentials or endpoint changed."""
    with _clients_lock:
        _client.cache_clear()
        _listing_client.cache_clear()
        _aws.cache_clear()


def listing_client(account: Account, timeout_s: float) -> Any:
    """boto3's client, for listings; the same for the same arguments, and for any thread. It asks once.

    Args:
        timeout_s: how long one request may take.

    Raises:
        ConfigError, DeniedError: as `open_client`.
    """
    with _clients_lock:
        return _listing_client(account, timeout_s)


@functools.lru_cache(maxsize=64)
def _client(scheme: str, bucket: str, account: Account, timeout_s: float, deadline_s: float | None) -> ObjectStore:
    global _client_pid
    _client_pid = os.getpid()
    seconds = timedelta(seconds=timeout_s)
    client_options: Any = {"timeout": seconds, "connect_timeout": min(seconds, timedelta(seconds=10))}
    # Only listings leave retries to the client, which knows the page it is at; it retries no lost conditional write.
    retry_config: Any = {"max_retries": 0}
    if deadline_s is not None:
        pause = timedelta(seconds=min(MAX_PAUSE_S, max(deadline_s / 4, 0.1)))
        retry_config = {
            "max_retries": 100,
            "retry_timeout": timedelta(seconds=deadline_s),
            "backoff": {"max_backoff": pause},
        }
    options: Any = {"client_options": client_options, "retry_config": retry_config}
    if scheme != "s3":
        options |= {"skip_signature": True} if account.anonymous else {}
        return GCSStore(bucket, **options) if scheme == "gs" else AzureStore(bucket, **options)
    aws = _aws(account)
    client_options["allow_http"] = aws.client.meta.endpoint_url.startswith("http://")
    options |= {"skip_signature": True} if aws.credentials is None else {"credential_provider": aws.credentials}
    options |= _s3_address(bucket, aws.client.meta.endpoint_url, aws.region)
    # One DELETE an object: the bulk request reports a refusal in a form of its own, and not every store knows it.
    return S3Store(bucket, disable_bulk_delete=True, **options)


@functools.lru_cache(maxsize=8)
def _listing_client(account: Account, timeout_s: float) -> Any:
    aws = _aws(account)
    config = Config(
        signature_version=UNSIGNED if account.anonymous else None,
        connect_timeout=min(timeout_s, 10),
        read_timeout=timeout_s,
        retries={"total_max_attempts": 1},
        max_pool_connections=32,
    )
    client = aws.session.client("s3", region_name=aws.region, endpoint_url=account.endpoint_url, config=config)
    client.meta.events.register("before-send.s3", functools.partial(_send, client._endpoint.http_session, timeout_s))
    return client


def _send(http_session: Any, timeout_s: float, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
    """Sends in botocore's place, whose own timeout starts anew with every byte that comes."""
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
    """A body that has come, as botocore reads it."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts

    def stream(self) -> list[bytes]:
        """The body in parts."""
        return self._parts


def _s3_address(bucket: str, endpoint_url: str, region: str) -> dict[str, Any]:
    """Where the bucket is: in the host's name on AWS itself, in the path on every other endpoint.

    Both endpoint settings are given, since the client would take the more special one from the environment.
    """
    url, in_host = endpoint_url.rstrip("/"), False
    if urlsplit(url).hostname in ("s3.amazonaws.com", f"s3.{region}.amazonaws.com"):
        # A dot would be a second label, which the certificate does not cover.
        in_host = "." not in bucket
        url = f"https://{bucket + '.' if in_host else ''}s3.{region}.amazonaws.com"
    return {"endpoint": url, "aws_endpoint_url_s3": url, "region": region, "virtual_hosted_style_request": in_host}


@functools.lru_cache(maxsize=8)
def _aws(account: Account) -> _Aws:
    """Endpoint, region and credentials by boto3's chain.

    Raises:
        ConfigError: the profile is unknown, or the AWS configuration cannot be used.
        DeniedError: there are no credentials.
    """
    try:
        session = boto3.Session(profile_name=account.profile)
        # boto3 itself reads only AWS_DEFAULT_REGION.
        region = os.environ.get("AWS_REGION") or session.region_name or "us-east-1"
        signing = Config(signature_version=UNSIGNED) if account.anonymous else None
        client = session.client("s3", region_name=region, endpoint_url=account.endpoint_url, config=signing)
        check_endpoint(client.meta.endpoint_url)
        if account.anonymous:
            return _Aws(session, client, region, None)
        if session.get_credentials() is not None:
            # The client asks again five minutes before this ends, and boto3 renews what has less than ten left.
            return _Aws(session, client, region, Boto3CredentialProvider(session, ttl=timedelta(minutes=9)))
    except (ProfileNotFound, ConfigNotFound, ConfigParseError, ValueError) as error:
        raise ConfigError(f"the AWS configuration cannot be used: {redact(str(error))}") from None
    except BotoCoreError as error:
        raise DeniedError(f"no AWS credentials: {redact(str(error))}") from None
    raise DeniedError(
        "no AWS credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile, "
        "or ask for anonymous access to a public bucket"
    )
