"""Reads the rows of an output's files back, a few at a time, with what is needed to judge them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.chunks.columns import BASE_COLUMNS
from pipeline.errors import OutputError
from pipeline.output.layout import DATA
from pipeline.output.published import PublishedFile
from pipeline.store.errors import StoreError
from pipeline.store.object_info import ObjectInfo
from pipeline.store.store_path import StorePath

_SOURCE_COLUMNS = ("row", "image_id", "shard", "key", "source_etag", "status", "true_label", "encoded_bytes")
# A row with feature maps may have megabytes.
_BATCH_ROWS = 16


@dataclass(frozen=True, slots=True)
class OldRow:
    """One row of an output; attributes that are not listed here are columns.

    Attributes:
        is_ok: True for a row with answers.
        not_finite: the first column of answers that holds NaN or an infinite number; None for a row without one.
    """

    row: int
    image_id: str
    shard: str
    key: str | None
    source_etag: str | None
    true_label: str | None
    encoded_bytes: int | None
    is_ok: bool
    not_finite: str | None


def read_rows(output: StorePath, files: Iterable[PublishedFile], infos: Mapping[str, ObjectInfo]) -> Iterator[OldRow]:
    """Yields the rows of some output files, in the order of the files.

    Args:
        infos: the listed files by name.

    Raises:
        OutputError: a file cannot be read, or has changed since it was listed.
    """
    for file in files:
        path = output.join(DATA, file.file)
        try:
            with path.open(size=infos[file.file].size, etag=file.etag) as source:
                for batch in pq.ParquetFile(pa.PythonFile(source, mode="r")).iter_batches(_BATCH_ROWS):
                    yield from _rows(batch)
        except (StoreError, pa.ArrowException, KeyError) as error:
            raise OutputError(f"{path} cannot be read ({error}); is another run writing?") from error


def _rows(batch: pa.RecordBatch) -> Iterator[OldRow]:
    answers = {name: _not_finite(batch.column(name)) for name in batch.schema.names if name not in BASE_COLUMNS.names}
    for at, values in enumerate(batch.select(_SOURCE_COLUMNS).to_pylist()):
        is_ok = values.pop("status") == "ok"
        bad = next((name for name, flags in answers.items() if is_ok and flags[at]), None)
        yield OldRow(**values, is_ok=is_ok, not_finite=bad)


def _not_finite(column: pa.Array) -> npt.NDArray[np.bool_]:
    """Returns for each row whether its value holds a number that is not finite, at any depth of lists and structs."""
    flags = np.zeros(len(column), np.bool_)
    kind = column.type
    if pa.types.is_floating(kind):
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        return valid & ~np.isfinite(column.to_numpy(zero_copy_only=False).astype(np.float64))
    if pa.types.is_struct(kind):
        for at in range(kind.num_fields):
            flags |= _not_finite(pc.struct_field(column, [at]))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = _not_finite(pc.list_flatten(column))
        flags[pc.list_parent_indices(column).to_numpy(zero_copy_only=False)[inner]] = True
    return flags
