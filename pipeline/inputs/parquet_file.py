"""Opens a Parquet file for reading by parts, and judges the number of rows that its footer claims."""

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.chunks.bugs import explain

FREE_ROWS = 2**16
ROWS_PER_BYTE = 8
"""A footer may claim `FREE_ROWS + ROWS_PER_BYTE * size in bytes` rows.

A row that differs from the row before it takes a bit at least. Rows that are all alike may take less, and `FREE_ROWS`
is for them.
"""

# Without a buffer, Arrow reads the column of a whole row group at once: gigabytes, if all images lie in one group.
READ_OPTIONS: dict[str, Any] = {"buffer_size": 2**23, "pre_buffer": False, "page_checksum_verification": True}
_BATCH_ROWS = 16
_BATCH_BYTES = 2**27


class BrokenParquetError(ValueError):
    """A file that is no Parquet file, or has a broken footer, or a footer that claims too many rows."""


class Guarded:
    """A file for Arrow that keeps the error of a read, so that a failing store is not taken for a broken page."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self.error: Exception | None = None
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """Returns the next bytes."""
        try:
            return self._file.read(size)
        except Exception as error:
            self.error = error
            raise

    def close(self) -> None:
        """Does nothing, since the caller closes the file."""

    def pass_on(self) -> None:
        """Raises the error of the last read that failed; does nothing if no read has failed."""
        if self.error is not None:
            raise self.error from None


class OpenParquet:
    """A Parquet file whose columns are read by their places in the schema: names may be doubled, or no UTF-8.

    Attributes:
        guarded: the file.
        metadata: the footer.
        schema: columns as Arrow types.

    Raises:
        BrokenParquetError: the file is no Parquet file, or its footer is broken.
    """

    def __init__(self, guarded: Guarded) -> None:
        self.guarded = guarded
        reader = self._reader(None)
        self.metadata: pq.FileMetaData = reader.metadata
        try:
            self.schema: pa.Schema = reader.schema_arrow
            self.groups = [self.metadata.row_group(at).num_rows for at in range(self.metadata.num_row_groups)]
        except Exception as error:  # Arrow raises several kinds of errors for a broken footer
            raise _broken(error) from None
        if min(self.metadata.num_rows, *self.groups, 0) < 0:
            raise BrokenParquetError("the footer is broken: it claims a negative number of rows")

    @property
    def num_rows(self) -> int:
        """The number of rows that the footer promises: the file's number, or the sum of its row groups if larger."""
        return max(int(self.metadata.num_rows), sum(self.groups))

    def check_num_rows(self) -> None:
        """Raises `BrokenParquetError` if the footer claims more rows than the file's bytes allow."""
        size = self.guarded.seek(0, 2)
        most = FREE_ROWS + ROWS_PER_BYTE * size
        if self.num_rows > most:
            raise BrokenParquetError(
                f"the footer claims {self.num_rows} rows, but a file of {size} bytes may have at most {most}"
            )

    def batches(self, leaves: tuple[int, ...], group: int, num_rows: int) -> Iterator[pa.RecordBatch]:
        """Yields some leaves of one top-level column of a row group, in batches of `num_rows` rows.

        Any error of Arrow over broken pages passes through, and so do errors of the file.
        """
        # Each column has a reader of its own, since the size of batches is a property of a reader. A single thread
        # reads, so that every attempt meets the same error first.
        reader = self._reader(self.metadata)
        yield from reader.iter_batches(num_rows, row_groups=[group], column_indices=list(leaves), use_threads=False)

    def batch_rows(self, group: int) -> int:
        """Returns the number of rows of a batch, from 1 to 16, so that its cells take at most 128 MiB or are one row's.

        One value of a dictionary may stand in all rows of a batch, and Arrow copies it into each row. So each row may
        be as large as its whole row group. The footers of columns say more, but Arrow aborts the process over
        broken ones.
        """
        group_bytes = self.metadata.row_group(group).total_byte_size
        return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, group_bytes)))

    def _reader(self, metadata: pq.FileMetaData | None) -> pq.ParquetReader:
        reader = pq.ParquetReader()
        try:
            reader.open(
                pa.PythonFile(self.guarded, mode="r"),
                metadata=metadata,
                # Arrow's default, nanoseconds, turns the year 9999 into another year without an error.
                coerce_int96_timestamp_unit="us",
                arrow_extensions_enabled=True,
                **READ_OPTIONS,
            )
        except Exception as error:  # Arrow raises several kinds of errors for a broken footer
            self.guarded.pass_on()
            raise _broken(error) from None
        return reader


def open_file(guarded: Guarded) -> pq.ParquetFile:
    """Opens a file whose columns are read by their names.

    Raises:
        BrokenParquetError: the file is no Parquet file, or its footer is broken.
    """
    try:
        return pq.ParquetFile(pa.PythonFile(guarded, mode="r"), **READ_OPTIONS)
    except Exception as error:  # Arrow raises several kinds of errors for a broken footer
        guarded.pass_on()
        raise _broken(error) from None


def _broken(error: Exception) -> BrokenParquetError:
    return BrokenParquetError(explain(error, "this is no Parquet file, or a broken one"))
