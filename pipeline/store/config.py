"""Settings of a store: account, endpoint, and how long a failing request is repeated."""

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from pipeline.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """Account, endpoint and time limits of requests. The config holds no secrets, so it may be pickled and logged.

    Credentials, region and endpoint come from boto3's chain: environment, profile, web identity, container, instance.

    Attributes:
        profile: AWS profile; None takes the profile that the environment names.
        endpoint_url: S3 endpoint; None takes the endpoint that boto3 finds (AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the
            profile, AWS itself).
        anonymous: True sends requests without a signature, for public buckets.
        deadline_s: Seconds after the first attempt during which a request that fails transiently is repeated; 0 sends
            each request once.
        timeout_s: Seconds that one attempt may take. A read of more than 8 MiB is split into blocks of 8 MiB with
            attempts of their own. An upload has this time for every 32 MiB.
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

    @property
    def account(self) -> "StoreConfig":
        """The config with the default time limits; two configs with equal accounts may share one session."""
        return StoreConfig(profile=self.profile, endpoint_url=self.endpoint_url, anonymous=self.anonymous)

    def bounded(self, deadline_s: float, timeout_s: float = float("inf")) -> "StoreConfig":
        """Returns the config with its time limits lowered to these values; a deadline of 0 sends each request once."""
        return replace(self, deadline_s=min(self.deadline_s, deadline_s), timeout_s=min(self.timeout_s, timeout_s))


def check_endpoint(url: str) -> None:
    """Raises a `ConfigError` if the text is not the URL of an endpoint, or names a user."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise ConfigError("the endpoint must be a URL such as https://host:port, without user and password")
