"""How a store is reached, and with how much patience."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from pipeline.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """Account, endpoint and patience; no secrets, so it may be pickled and logged.

    Credentials, region and endpoint come from boto3's chain: environment, profile, web identity, container, instance.

    Attributes:
        profile: AWS profile; None goes by the environment.
        endpoint_url: S3 endpoint; None takes boto3's (AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the profile, AWS itself).
        anonymous: send unsigned requests, for public buckets.
        deadline_s: how long after the first attempt a request that fails transiently may be asked again; 0 asks once.
        timeout_s: how long one attempt may take from its first byte to its last. Longer reads are split into blocks of
            8 MiB, each an attempt of its own; an upload has this time for every 32 MiB.
    """

    profile: str | None = None
    endpoint_url: str | None = None
    anonymous: bool = False
    deadline_s: float = 60.0
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if self.endpoint_url is not None:
            check_endpoint(self.endpoint_url)
        if not 0 <= self.deadline_s < float("inf"):
            raise ConfigError(f"--store-deadline-s must be a number of seconds, not {self.deadline_s:g}")
        if not 0 < self.timeout_s < float("inf"):
            raise ConfigError(f"the store's timeout must be positive, not {self.timeout_s:g}")


@dataclass(frozen=True, kw_only=True)
class Account:
    """Whose requests these are, and where they go.

    Attributes:
        profile: AWS profile; None goes by the environment.
        endpoint_url: S3 endpoint; None takes boto3's.
        anonymous: send unsigned requests.
    """

    profile: str | None
    endpoint_url: str | None
    anonymous: bool


def check_endpoint(url: str) -> None:
    """Raises a `ConfigError` for what is no endpoint's URL, or holds a password."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise ConfigError("the endpoint must be a URL such as https://host:port, without user and password")
