"""Settings of the output."""

from dataclasses import dataclass, field

from pipeline.chunks.failures import ErrorCode
from pipeline.errors import ConfigError
from pipeline.store.config import StoreConfig
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """The output folder and the size of its files.

    Attributes:
        uri: Canonical URI of the output folder.
        rows_per_file: Rows at which a slice, and so an output file, ends.
        max_file_mib: Predicted size of a file in MiB at which a slice with fewer rows ends.
        wait_for_lease_s: Seconds to wait until another run on this output ends.
        prune: True removes the rows whose sources are gone from the inputs.
        retry_failed: Error codes whose records are tried again; None tries no record again, an empty set tries all
            failed records again.
        take_over: True continues an output of older rules of reading under the present rules: whatever was read under
            the older rules is read again.
        store: Account and endpoint of the output's store.
    """

    uri: str
    rows_per_file: int = 4096
    max_file_mib: int = 512
    wait_for_lease_s: float = 0.0
    prune: bool = False
    retry_failed: frozenset[str] | None = None
    take_over: bool = False
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

    @property
    def folder(self) -> StorePath:
        """The output folder in its store."""
        return StorePath(self.uri, self.store)
