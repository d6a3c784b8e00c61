"""The formats of shards: one value for each, in one table.

A new format needs two files:

1. Its reader, such as `tar.py` or `parquet.py`. A reader yields one `Record` for each image and then one `ShardEnd`.
   The order and the keys of the records depend on the bytes of the file alone. Broken bytes become failed records.
   Errors of the methods of the file pass through unchanged, so that a failing store is not taken for broken bytes.
2. Its entry in `FORMATS`, below. The listing, the plan, the read step, the estimate and the choices of
   `--input-format` follow from this table.

`readable_name` in `pipeline/output/layout.py` and the help of `--include` in `jobs/cli/flags.py` list the endings too,
and need the new ending. The audit shares no code with the job, so the audit needs a reader of its own, and an entry in
its own table, `infra/audit/formats.py`.

Loose images are not in the table, since no reader opens a file of them: the planner puts them into groups, and
`loose_files.py` fetches the members of a group one by one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.inputs.parquet import check_parquet, num_rows, read_parquet
from pipeline.inputs.record import ReaderOptions, Record, ShardEnd
from pipeline.inputs.tar import bytes_in_tar, read_tar

Check = Callable[[BinaryIO, ReaderOptions], Mapping[str, str]]

LOOSE_FILES = "files"
"""Value of a plan's column `format`, and of `--input-format`, for loose images and groups of loose images."""

FILES_SCHEME = "files:"
"""Beginning of the name `files:<hash16>`, which a group of loose images has in place of a URI."""


def _encoded_bytes(record: Record) -> int:
    return len(record.data or b"")


@dataclass(frozen=True, kw_only=True)
class InputFormat:
    """One format of shards.

    Attributes:
        name: value of `--input-format`, and of the plan's column `format`.
        endings: endings of the names of objects in this format, in lower case.
        read: function of a file, the options and a start row, which yields the records from the start row on, then a
            `ShardEnd`.
        count: function of a file and the options, which returns the number of records in the file without reading the
            records. The function raises ValueError if the file gives one failed record in place of its records. None if
            the records must be read to be counted.
        stored_bytes: function that returns the number of bytes that a record takes in the file. Only used for
            estimates, if `count` is None.
        check: function of a file and the options, which returns the columns to keep that the file lacks, each with a
            sentence about it. The function raises `ColumnError` if the file holds no images, and another ValueError if
            the file is broken. None if the format has no columns.
        keys_are_rows: True if the key of every record is its row number.
    """

    name: str
    endings: tuple[str, ...]
    read: Callable[[BinaryIO, ReaderOptions, int], Iterator[Record | ShardEnd]]
    count: Callable[[BinaryIO, ReaderOptions], int] | None = None
    stored_bytes: Callable[[Record], int] = _encoded_bytes
    check: Check | None = None
    keys_are_rows: bool = False

    def takes(self, name: str) -> bool:
        """Returns True if a name has an ending of this format, in upper or lower case."""
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
    """Returns the format that has the ending of a name or glob; None if no format of shards has that ending."""
    return next((entry for entry in FORMATS.values() if entry.takes(name)), None)


def format_choices() -> tuple[str, ...]:
    """Returns the values that `--input-format` may have."""
    return ("auto", *FORMATS, LOOSE_FILES)
