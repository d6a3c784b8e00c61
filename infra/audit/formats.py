"""The formats of shards as the audit reads them, in one table of `ShardFormat` values.

The job has a table of its own, `pipeline/inputs/formats.py`; the audit shares no code with it. A new format needs an
entry in both tables, and here a function that finds the images of a shard (`tars.py`) or counts its rows
(`parquets.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb

from infra.audit.parquets import Counted, count_rows
from infra.audit.places import Object, Store
from infra.audit.tars import ShardImage, tar_images

LOOSE_FILES = "files"
"""Name of the format of images that are objects by themselves, outside any shard."""


@dataclass(frozen=True, kw_only=True)
class ShardFormat:
    """One format of shards. Either `images` or `count` is set.

    Attributes:
        name: Value of `--input-format`.
        endings: Endings of the names of shards of this format, in lower case.
        images: Function (path, test of a name, version of the rules of reading) -> (images, reason). `images` has each
            image in the order of the shard. `reason` says why the shard breaks off; None for a whole shard. The test
            returns True for the names of images.
        count: Function (object, store, database, scratch folder, version of the rules of reading, column of images or
            None) -> what the shard must have as rows. Formats whose records have row numbers as keys set `count`.
    """

    name: str
    endings: tuple[str, ...]
    images: Callable[[Path, Callable[[str], bool], int], tuple[list[ShardImage], str | None]] | None = None
    count: Callable[[Object, Store, duckdb.DuckDBPyConnection, Path, int, str | None], Counted] | None = None


TAR = ShardFormat(name="tar", endings=(".tar", ".tar.gz", ".tgz"), images=tar_images)
PARQUET = ShardFormat(name="parquet", endings=(".parquet",), count=count_rows)
FORMATS = {TAR.name: TAR, PARQUET.name: PARQUET}


def format_of(name: str) -> ShardFormat | None:
    """Returns the format with the ending of a name or glob; None if no format has the ending."""
    return next((entry for entry in FORMATS.values() if name.lower().endswith(entry.endings)), None)


def format_choices() -> tuple[str, ...]:
    """Returns the values that `--input-format` may have."""
    return ("auto", *FORMATS, LOOSE_FILES)
