"""The formats of shards: one value for each, in one table.

A new format needs two files:

1. Its reader, such as `tar.py` or `parquet.py`. A reader yields one `Record` for each image and then one `ShardEnd`.
   The order and the keys of the records depend on the bytes of the file alone. Broken bytes become failed records.
   What the methods of the file raise passes through unchanged, so that a failing store is not taken for broken bytes.
2. Its entry in `FORMATS`, below. The listing, the plan, the read step, the estimate and the choices of
   `--input-format` follow from this table.

`readable_name` in `pipeline/output/layout.py` and the help of `--include` in `jobs/cli/flags.py` list the endings too,
and need the new one. The audit shares no code with the job, so the audit needs a reader of its own, and an entry in its
own table, `infra/audit/formats.py`.

Loose images are not in the table, since no reader opens a file of them: the planner puts them into groups, and
`loose_files.py` fetches the members of a group one by one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.inputs.parquet import check_parquet, num_rows, read_parquet
from pipeline.inputs.record import ReaderOptions, Record, ShardEnd
from pipeline.inputs.tar import bytes_in_tar, read_tar

LOOSE_FILES = "files"
"""Name that loose images, and groups of them, have in place of a format's name."""

FILES_SCHEME = "files:"
"""Begins the name of a group of loose images where a shard has its URI."""


def _encoded_bytes(record: Record) -> int:
    return len(record.data or b"")


@dataclass(frozen=True, kw_only=True)
class InputFormat:
    """One format of shards.

    Attributes:
        name: value of `--input-format`, and of the plan's column `format`.
        endings: endings of the names of such objects, in lower case.
        read: (file, options, start row) -> the records from the start row on, then a `ShardEnd`.
        count: file -> number of records, if the file says so without being read. Raises ValueError if the file is
            broken. None if the records must be read to be counted.
        stored_bytes: record -> bytes that the record takes in the file. Only used for estimates, if `count` is None.
        check: (file, options) -> None. Raises `ColumnError` if the file lacks a column that the options ask for, and
            another ValueError if the file is broken. None if the options cannot ask for anything that is lacking.
        keys_are_rows: True if the key of every record is its row number.
    """

    name: str
    endings: tuple[str, ...]
    read: Callable[[BinaryIO, ReaderOptions, int], Iterator[Record | ShardEnd]]
    count: Callable[[BinaryIO], int] | None = None
    stored_bytes: Callable[[Record], int] = _encoded_bytes
    check: Callable[[BinaryIO, ReaderOptions], None] | None = None
    keys_are_rows: bool = False

    def takes(self, name: str) -> bool:
        """Returns True if a name ends as the names of this format do, in any case."""
        return name.lower().endswith(self.endings)

    def lost_key(self, row: int) -> str:
        """Returns the key of a record that was lost together with its shard, before its own key was read."""
        return str(row) if self.keys_are_rows else f"@{row}"


TAR = InputFormat(name="tar", endings=(".tar", ".tar.gz", ".tgz"), read=read_tar, stored_bytes=bytes_in_tar)
PARQUET = InputFormat(
    name="parquet", endings=(".parquet",), read=read_parquet, count=num_rows, check=check_parquet, keys_are_rows=True
)
FORMATS = {TAR.name: TAR, PARQUET.name: PARQUET}


def format_of(name: str) -> InputFormat | None:
    """Returns the format that the ending of a name or glob says; None if it is not the ending of a shard."""
    return next((entry for entry in FORMATS.values() if entry.takes(name)), None)


def format_choices() -> tuple[str, ...]:
    """Returns the values that `--input-format` may have."""
    return ("auto", *FORMATS, LOOSE_FILES)
