"""Settings of the output."""

from dataclasses import dataclass, field

from pipeline.chunks.failures import ErrorCode
from pipeline.errors import ConfigError
from pipeline.store.storage import StoreConfig
from pipeline.store.uris import canonical_uri


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Where the rows go.

    Attributes:
        uri: canonical URI of the output folder.
        rows_per_file: rows at which a slice, and so an output file, ends.
        max_file_mib: predicted size at which it ends earlier.
        wait_for_lease_s: how long to wait for another run on this output to end.
        prune: take out the rows of sources that are gone from the inputs.
        retry_failed: error codes whose records are tried again; None: none, empty: every code.
        store: account and endpoint.
    """

    uri: str
    rows_per_file: int = 4096
    max_file_mib: int = 512
    wait_for_lease_s: float = 0.0
    prune: bool = False
    retry_failed: frozenset[str] | None = None
    store: StoreConfig = field(default_factory=StoreConfig)

    def __post_init__(self) -> None:
        if self.rows_per_file < 1:
            raise ConfigError(f"--rows-per-file must be at least 1, not {self.rows_per_file}")
        if self.max_file_mib < 1:
            raise ConfigError(f"--max-file-mib must be at least 1, not {self.max_file_mib}")
        if not 0 <= self.wait_for_lease_s < float("inf"):
            raise ConfigError(f"--wait-for-lease-s must not be negative, not {self.wait_for_lease_s:g}")
        if unknown := sorted((self.retry_failed or frozenset()) - {str(code) for code in ErrorCode}):
            raise ConfigError(
                f"--retry-failed: there is no error code {unknown[0]!r}; choose from {', '.join(map(str, ErrorCode))}"
            )
        object.__setattr__(self, "uri", canonical_uri(self.uri))
