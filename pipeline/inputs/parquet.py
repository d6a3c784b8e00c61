"""Reads a Parquet file of encoded images row by row: one record for each row that the footer promises.

Memory holds a few rows and one page of each column. The writer of the file decided how large a page is: pyarrow puts
1024 rows of a column of bytes into one page. Columns that nobody asked for are not read.
"""

import logging
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import BinaryIO

import pyarrow as pa

from pipeline.chunks.bugs import explain
from pipeline.chunks.failures import ErrorCode, Failure
from pipeline.inputs.parquet_cells import cell_value, image_of
from pipeline.inputs.parquet_columns import Column, Columns, choose_columns, lacking_columns
from pipeline.inputs.parquet_file import BrokenParquetError, Guarded, OpenParquet, open_file
from pipeline.inputs.parquet_first_rules import read_under_first_rules
from pipeline.inputs.record import ColumnError, ReaderOptions, Record, ShardEnd, as_text, label_text
from pipeline.inputs.rules import FIRST_RULES

logger = logging.getLogger(__name__)

_MAX_MESSAGE = 200
_NULL = pa.scalar(None)


def read_schema(file: BinaryIO) -> pa.Schema:
    """Returns the columns of a Parquet file.

    Raises:
        BrokenParquetError: the file is no Parquet file, or its footer is broken.
    """
    return OpenParquet(Guarded(file)).schema


def num_rows(file: BinaryIO, options: ReaderOptions) -> int:
    """Returns the number of records that the footer promises.

    Raises:
        BrokenParquetError: the file is no Parquet file, or its footer is broken or claims more rows than the file's
            bytes allow.
        ColumnError: the file has no column with images.
    """
    guarded = Guarded(file)
    if options.rules == FIRST_RULES:
        return int(open_file(guarded).metadata.num_rows)
    return _opened(guarded, options)[0].num_rows


def check_parquet(file: BinaryIO, options: ReaderOptions) -> dict[str, str]:
    """Returns the columns to keep that a file lacks, each with a sentence that names the columns there are.

    Raises:
        ColumnError: the file has no column with images.
        BrokenParquetError: the file is no Parquet file, or its footer is broken.
    """
    return lacking_columns(read_schema(file), options.image_column, options.keep_columns)


def read_parquet(file: BinaryIO, options: ReaderOptions, start_row: int = 0) -> Iterator[Record | ShardEnd]:
    """Yields the rows from `start_row` on, then a `ShardEnd`.

    - A row without image bytes becomes a failed record; paths are not followed.
    - The label comes from the first column by `LABEL_NAMES`. A number of Hugging Face's `ClassLabel`, whose names are
      in the file or beside it (`dataset_info.py`), becomes the name of its class. -1, which stands for no label there,
      becomes None. `label_text` converts other labels.
    - A column to keep that the file lacks gives None for every row. A cell without a known text is None.
    - Of two columns with one name the first is read.
    - A row whose image lies in a page that cannot be read becomes a failed record, `source.truncated`; reading goes on
      with the next row group. If a page of another column cannot be read, the values of its rows and of the rows behind
      them in the row group are None.
    - A row that the footer promises and no row group holds becomes a failed record, `source.truncated`.
    - A file gives one record without a key, `source.unreadable`, if it has no readable footer or no column with images,
      or if its footer claims more rows than its bytes allow (`OpenParquet.check_num_rows`).

    Args:
        file: a seekable file; errors of its methods pass through unchanged.
        options: under the first rules of reading, `parquet_first_rules.py` reads the file.
        start_row: first row that is yielded; row groups that end before this row are not read.
    """
    guarded = Guarded(file)
    try:
        if options.rules == FIRST_RULES:
            records = read_under_first_rules(guarded, options, start_row)
        else:
            records = _records(*_opened(guarded, options, options.names_beside), start_row)
    except ValueError as error:
        if error is guarded.error:
            raise
        message = str(error) if isinstance(error, BrokenParquetError | ColumnError) else explain(error)
        yield Record(key=None, data=None, failure=Failure(ErrorCode.SOURCE_UNREADABLE, message[:_MAX_MESSAGE]))
    else:
        yield from records
    yield ShardEnd()


def _opened(
    guarded: Guarded, options: ReaderOptions, names_beside: Callable[[str], tuple[str, ...]] = lambda column: ()
) -> tuple[OpenParquet, Columns]:
    """Returns a file and the columns to read.

    Raises:
        BrokenParquetError: the footer cannot be read, or claims more rows than the file's bytes allow.
        ColumnError: the file has no column with images.
    """
    parquet = OpenParquet(guarded)
    columns = choose_columns(parquet.schema, options.image_column, options.keep_columns, names_beside)
    parquet.check_num_rows()
    return parquet, columns


def _records(parquet: OpenParquet, columns: Columns, start_row: int) -> Iterator[Record]:
    end = 0
    for group, group_rows in enumerate(parquet.groups):
        rows = range(end, end + group_rows)
        end = rows.stop
        if end <= start_row:
            continue
        wanted = range(max(rows.start, start_row), end)
        cells = (
            _cells(parquet, columns.image, group, rows, wanted),
            *(_texts(parquet, column, group, rows, wanted) for column in (columns.label, *columns.kept)),
        )
        for row, image, label, *kept in zip(wanted, *cells, strict=False):
            yield _record(row, image, label, kept, columns)
    message = f"the footer promises {parquet.num_rows} rows, but its row groups hold {end}"
    for row in range(max(end, start_row), parquet.num_rows):
        yield _lost(row, Failure(ErrorCode.SOURCE_TRUNCATED, message))


def _record(row: int, image: pa.Scalar | Failure, label: pa.Scalar, kept: list[pa.Scalar], columns: Columns) -> Record:
    if isinstance(image, Failure):
        return _lost(row, image)
    try:
        data, failure = image_of(image)
        return Record(
            key=str(row),
            data=data,
            true_label=None if columns.label is None else _label(cell_value(label), columns.label.names),
            kept=tuple(as_text(cell_value(cell)) for cell in kept),
            failure=failure,
        )
    except Exception as error:  # an image that Arrow cannot hand over, or a bug
        message = explain(error, f"row {row} cannot be read")[:_MAX_MESSAGE]
        return _lost(row, Failure(ErrorCode.SOURCE_TRUNCATED, message))


def _lost(row: int, failure: Failure) -> Record:
    return Record(key=str(row), data=None, failure=failure)


def _label(value: object, names: tuple[str, ...]) -> str | None:
    text = label_text(value)
    if not names or isinstance(value, str | bytes) or text is None or not text.removeprefix("-").isdecimal():
        return text
    if text == "-1":
        return None
    return names[int(text)] if 0 <= int(text) < len(names) else text


def _texts(parquet: OpenParquet, column: Column | None, group: int, rows: range, wanted: range) -> Iterator[pa.Scalar]:
    """Yields the wanted cells of a column other than the images; nulls for cells that cannot be read."""
    if column is None:
        return repeat(_NULL)
    cells = _cells(parquet, column, group, rows, wanted)
    return (_NULL if isinstance(cell, Failure) else cell for cell in cells)


def _cells(
    parquet: OpenParquet, column: Column, group: int, rows: range, wanted: range
) -> Iterator[pa.Scalar | Failure]:
    """Yields one cell of a column for each wanted row; a failure for a cell that cannot be read.

    The row group is read from its first row on, so that what can be read does not depend on the rows that are wanted.
    Arrow cannot pass over a broken page, so all rows behind the page are lost with it. Rows before it that lie in the
    same batch are read again one by one.

    Args:
        rows: all rows of the row group.
        wanted: the last rows of the row group, or all of them.
    """
    next_row, row, reason = wanted.start, rows.start, ""
    for size in dict.fromkeys((parquet.batch_rows(group), 1)):
        row, reason = rows.start, "the row group ends there"
        batches = parquet.batches(column.leaves, group, size)
        while row < rows.stop:
            try:
                batch = next(batches, None)
            except Exception as error:  # any error of Arrow over a broken page
                parquet.guarded.pass_on()
                reason = explain(error)
                break
            if batch is None:
                break
            cells = batch.column(0)
            for at in range(next_row - row, min(len(cells), rows.stop - row)):
                yield cells[at]
            row += len(cells)
            next_row = max(next_row, row)
        if row >= rows.stop:
            return
    message = f"rows {row} to {rows.stop - 1} cannot be read: {reason}"
    logger.warning("parquet.rows_unreadable columns=%s: %s", column.leaves, message)
    failure = Failure(ErrorCode.SOURCE_TRUNCATED, message[:_MAX_MESSAGE])
    yield from repeat(failure, rows.stop - next_row)
