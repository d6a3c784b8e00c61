"""Reads a Parquet file under the first rules of reading, which an output that was begun under them keeps.

A text cell that Arrow cannot convert ends the file, as a broken page does: the file gives the rows before the batch of
that cell, and one failed record without a key.
"""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.chunks.bugs import explain
from pipeline.chunks.failures import ErrorCode, Failure
from pipeline.inputs.parquet_cells import image_of
from pipeline.inputs.parquet_columns import find_image_column
from pipeline.inputs.parquet_file import Guarded, open_file
from pipeline.inputs.record import ReaderOptions, Record, as_text

_LABEL_COLUMNS = ("label", "cls", "class")
_BATCH_ROWS = 16


def read_under_first_rules(guarded: Guarded, options: ReaderOptions, start_row: int) -> Iterator[Record]:
    """Yields the rows from `start_row` on.

    Raises:
        ValueError: before the first record, if the file has no readable footer or no column with images.
    """
    parquet = open_file(guarded)
    records = _records(parquet, find_image_column(parquet.schema_arrow, options.image_column), options, start_row)
    return _until_broken(records, guarded, start_row)


def _until_broken(records: Iterator[Record], guarded: Guarded, row: int) -> Iterator[Record]:
    while True:
        try:
            record = next(records, None)
        except Exception as error:  # any error of Arrow over a broken page becomes a failed record
            guarded.pass_on()
            message = explain(error, f"the file breaks off before row {row}")[:200]
            yield Record(key=None, data=None, failure=Failure(ErrorCode.SOURCE_TRUNCATED, message))
            return
        if record is None:
            return
        yield record
        row += 1


def _records(parquet: pq.ParquetFile, image: str, options: ReaderOptions, start_row: int) -> Iterator[Record]:
    names, keep_columns = parquet.schema_arrow.names, options.keep_columns
    label = next((name for name in _LABEL_COLUMNS if name in names and name != image), None)
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
            images = batch.column(image)
            _check_paths(images)
            labels = batch.column(label).to_pylist() if label else [None] * len(batch)
            kept = [batch.column(name).to_pylist() if name in names else [None] * len(batch) for name in keep_columns]
            for at in range(max(start_row - row, 0), len(batch)):
                data, failure = image_of(images[at])
                yield Record(
                    key=str(row + at),
                    data=data,
                    true_label=None if isinstance(labels[at], list | dict) else as_text(labels[at]),
                    kept=tuple(as_text(values[at]) for values in kept),
                    failure=failure,
                )
            row += len(batch)
        if row != group_end:
            raise EOFError(f"row group {group} ends at row {row}, not at {group_end}")


def _check_paths(images: pa.Array) -> None:
    """Raises an error if the path of a Hugging Face image is no UTF-8."""
    if isinstance(images, pa.ExtensionArray):
        images = images.storage
    if pa.types.is_struct(images.type) and images.type.get_field_index("path") >= 0:
        pc.struct_field(images, "path").to_pylist()
