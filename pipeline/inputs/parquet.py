"""Reads a Parquet file of encoded images row by row. Memory holds a few rows and one page of each column.

The writer of the file decided how large a page is: pyarrow puts 1024 rows of a column of bytes into one page.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.chunks.bugs import explain
from pipeline.chunks.failures import ErrorCode, Failure
from pipeline.inputs.record import MAX_ENCODED_BYTES, ColumnError, ReaderOptions, Record, ShardEnd, as_text

IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "content", "data")
"""Names, in upper or lower case, by which a column of images is recognised; the likeliest name comes first."""

LABEL_COLUMNS = ("label", "cls", "class")

_BATCH_ROWS = 16
# Without a buffer, Arrow reads the column of a whole row group at once: gigabytes, if all images lie in one group.
_BUFFER_BYTES = 2**23


class BrokenParquetError(ValueError):
    """A file that is no Parquet file, or has a broken footer."""


def read_schema(file: BinaryIO) -> pa.Schema:
    """Returns the columns of a Parquet file.

    Raises:
        BrokenParquetError: the file is no Parquet file, or its footer is broken.
    """
    return _open(_Guarded(file)).schema_arrow


def num_rows(file: BinaryIO) -> int:
    """Returns the number of rows that the footer promises.

    Raises:
        BrokenParquetError: the file is no Parquet file, or its footer is broken.
    """
    return int(_open(_Guarded(file)).metadata.num_rows)


def find_image_column(schema: pa.Schema, image_column: str | None) -> str:
    """Returns the name of the column that holds the encoded images.

    The function takes `image_column` if that is given, else a Hugging Face image (a struct with a field `bytes`), else
    a column of bytes with a known name. A string column is taken only if `image_column` names the column: some writers
    store bytes in string columns.

    Raises:
        ColumnError: no column is known to hold images, or `image_column` is missing or cannot hold images.
    """
    types = {field.name: _plain_type(field.type) for field in schema}
    there_are = "the columns are " + (", ".join(f"{name} ({kind})" for name, kind in types.items()) or "none")
    if image_column is not None:
        if image_column not in types:
            raise ColumnError(f"there is no column {image_column!r} for --image-column: {there_are}")
        if not (_is_file(types[image_column]) or _is_bytes(types[image_column]) or _is_text(types[image_column])):
            raise ColumnError(f"the column {image_column!r} of --image-column does not hold bytes: {there_are}")
        return image_column
    files = {name.lower(): name for name, kind in types.items() if _is_file(kind)}
    plain = {name.lower(): name for name, kind in types.items() if _is_bytes(kind)}
    found = [files[name] for name in IMAGE_COLUMNS if name in files]
    # A single struct of bytes holds the images whatever its name is. A column of bytes may hold anything, so its name
    # must be known.
    found += files.values() if len(files) == 1 else ()
    found += [plain[name] for name in IMAGE_COLUMNS if name in plain]
    if not found:
        raise ColumnError(f"no column is known to hold images; name one with --image-column: {there_are}")
    return found[0]


def check_parquet(file: BinaryIO, options: ReaderOptions) -> None:
    """Checks that a file has the columns that the options ask for.

    Raises:
        ColumnError: the file lacks a column with images or a column to keep.
        BrokenParquetError: the file is no Parquet file, or its footer is broken.
    """
    check_columns(read_schema(file), options.image_column, options.keep_columns)


def check_columns(schema: pa.Schema, image_column: str | None, keep_columns: tuple[str, ...]) -> None:
    """Checks that a schema has a column with images and all columns to keep.

    Raises:
        ColumnError: the schema lacks a column with images or a column to keep.
    """
    find_image_column(schema, image_column)
    for name in keep_columns:
        if name not in schema.names:
            raise ColumnError(
                f"there is no column {name!r} for --keep-columns: the columns are {', '.join(schema.names)}"
            )


def read_parquet(file: BinaryIO, options: ReaderOptions, start_row: int = 0) -> Iterator[Record | ShardEnd]:
    """Yields the rows from `start_row` on, then a `ShardEnd`; the key of a record is its row number.

    A row without image bytes becomes a failed record; paths are not followed. The column `label`, `cls` or `class`
    gives the label; a class number stays a number, whatever names the file has for the classes. A column to keep that
    the file lacks gives None for every row. A file without a readable footer or without an image column gives one
    record without a key, `source.unreadable`. A file with a page that cannot be read gives the rows before that page
    and one record without a key, `source.truncated`.

    Args:
        file: a seekable file; errors of its methods pass through unchanged.
        start_row: first row that is yielded; row groups that end before this row are not read.
    """
    guarded = _Guarded(file)
    try:
        parquet = _open(guarded)
        image = find_image_column(parquet.schema_arrow, options.image_column)
    except ValueError as error:
        if error is guarded.error:
            raise
        message = str(error) if isinstance(error, BrokenParquetError | ColumnError) else explain(error)
        yield Record(key=None, data=None, failure=Failure(ErrorCode.SOURCE_UNREADABLE, message[:200]))
        yield ShardEnd()
        return
    row = start_row
    records = _records(parquet, image, options.keep_columns, start_row)
    while True:
        try:
            record = next(records, None)
        except Exception as error:  # any error of Arrow over a broken page becomes a failed record
            if guarded.error is not None:
                raise guarded.error from None
            message = explain(error, f"the file breaks off before row {row}")[:200]
            yield Record(key=None, data=None, failure=Failure(ErrorCode.SOURCE_TRUNCATED, message))
            break
        if record is None:
            break
        yield record
        row += 1
    yield ShardEnd()


def _records(parquet: pq.ParquetFile, image: str, keep_columns: tuple[str, ...], start_row: int) -> Iterator[Record]:
    names = parquet.schema_arrow.names
    label = next((name for name in LABEL_COLUMNS if name in names and name != image), None)
    columns = list(dict.fromkeys(name for name in (image, label, *keep_columns) if name in names))
    row = 0
    # Row groups are read one after the other, so that batches begin at the same rows wherever reading starts.
    for group in range(parquet.metadata.num_row_groups):
        group_end = row + parquet.metadata.row_group(group).num_rows
        if group_end <= start_row:
            row = group_end
            continue
        # A single thread reads, so that of two broken columns the same one is always met first.
        for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False):
            images, reasons = _images(batch.column(image))
            labels = batch.column(label).to_pylist() if label else [None] * len(batch)
            kept = [batch.column(name).to_pylist() if name in names else [None] * len(batch) for name in keep_columns]
            for at in range(max(start_row - row, 0), len(batch)):
                yield Record(
                    key=str(row + at),
                    data=images[at] if reasons[at] is None else None,
                    true_label=None if isinstance(labels[at], list | dict) else as_text(labels[at]),
                    kept=tuple(as_text(values[at]) for values in kept),
                    failure=reasons[at],
                )
            row += len(batch)
        if row != group_end:
            raise EOFError(f"row group {group} ends at row {row}, not at {group_end}")


def _images(column: pa.Array) -> tuple[list[bytes | None], list[Failure | None]]:
    """Returns the image of each row, and the failure of each row; the failure is None if the image can be used."""
    column = _plain(column)
    paths = [None] * len(column)
    if pa.types.is_struct(column.type):
        if column.type.get_field_index("path") >= 0:
            paths = _plain(pc.struct_field(column, "path")).to_pylist()
        column = _plain(pc.struct_field(column, "bytes"))
    if _is_text(column.type):
        column = column.cast(pa.large_binary())
    images = column.to_pylist()
    return images, [_reason(image, path) for image, path in zip(images, paths, strict=True)]


def _reason(image: bytes | None, path: Any) -> Failure | None:
    if image is None and path is not None:
        return Failure(ErrorCode.SOURCE_MISSING, "the row has a path but no bytes; paths are not followed")
    if image is None:
        return Failure(ErrorCode.SOURCE_MISSING, "the row has no image")
    if len(image) > MAX_ENCODED_BYTES:
        message = f"the row has {len(image)} bytes, more than an image may have"
        return Failure(ErrorCode.IMAGE_TOO_LARGE, message)
    return None


def _plain(column: pa.Array) -> pa.Array:
    """Returns the column without an extension type or a dictionary around it."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_file(kind: pa.DataType) -> bool:
    at = kind.get_field_index("bytes") if pa.types.is_struct(kind) else -1
    return at >= 0 and _is_bytes(_plain_type(kind.field(at).type))


def _open(guarded: "_Guarded") -> pq.ParquetFile:
    try:
        return pq.ParquetFile(
            pa.PythonFile(guarded, mode="r"),
            buffer_size=_BUFFER_BYTES,
            pre_buffer=False,
            page_checksum_verification=True,
        )
    except Exception as error:  # Arrow raises several kinds of errors for a broken footer
        if guarded.error is not None:
            raise guarded.error from None
        raise BrokenParquetError(explain(error, "this is no Parquet file, or a broken one")) from None


class _Guarded:
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
