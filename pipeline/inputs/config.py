"""Settings of the inputs."""

from dataclasses import dataclass, field, replace

from pipeline.errors import ConfigError
from pipeline.inputs.dataset_info import names_beside
from pipeline.inputs.formats import format_choices
from pipeline.inputs.names import NameFilter
from pipeline.inputs.record import ReaderOptions
from pipeline.store.config import StoreConfig
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """Settings of the inputs: where records lie, and which of them are read.

    Attributes:
        uris: canonical URIs of objects, prefixes or folders.
        names: globs that select images and shards.
        format: `auto`, or the only format that is read. Endings of names show which objects have the format; an object
            that is itself an input may have any ending.
        image_column: column of Parquet files that holds the encoded images; None finds the column.
        keep_columns: columns of the source that are copied into the output, as text.
        limit: number of records that are read at most; None reads all records.
        store: account and endpoint of the store.
    """

    uris: tuple[str, ...]
    names: NameFilter = field(default_factory=NameFilter)
    format: str = "auto"
    image_column: str | None = None
    keep_columns: tuple[str, ...] = ()
    limit: int | None = None
    store: StoreConfig = field(default_factory=StoreConfig)

    def __post_init__(self) -> None:
        if not self.uris:
            raise ConfigError("no input: give at least one --input URI")
        if self.format not in format_choices():
            raise ConfigError(f"--input-format must be one of {', '.join(format_choices())}, not {self.format}")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"--limit must be at least 1, not {self.limit}")
        if len(set(self.keep_columns)) != len(self.keep_columns):
            raise ConfigError("--keep-columns names a column twice")
        object.__setattr__(self, "uris", tuple(dict.fromkeys(canonical_uri(uri) for uri in self.uris)))

    @property
    def places(self) -> tuple[StorePath, ...]:
        """The paths of the inputs in their store."""
        return tuple(map(self.place, self.uris))

    def place(self, uri: str) -> StorePath:
        """Returns the path of an object in the store of the inputs, with the account of the inputs."""
        return StorePath(uri, self.store)

    @property
    def reader_options(self) -> ReaderOptions:
        """Options that the readers of all shards have in common."""
        return ReaderOptions(
            takes_image=self.names.takes_image,
            ending_left_out=self.names.ending_left_out,
            image_column=self.image_column,
            keep_columns=self.keep_columns,
            rules=self.names.rules,
        )

    def options_for(self, uri: str) -> ReaderOptions:
        """Returns the options that the reader of one shard gets."""
        return replace(self.reader_options, names_beside=names_beside(self.place(uri)))

    def under_rules(self, rules: int) -> "InputConfig":
        """Returns the same settings under another version of the rules of reading."""
        return replace(self, names=replace(self.names, rules=rules))
