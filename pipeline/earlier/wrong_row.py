"""The findings about an output of earlier rules: one for each row that is wrong, and for each image without a row."""

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Literal, NamedTuple, get_args

import pyarrow as pa
import pyarrow.parquet as pq

Kind = Literal["no row", "label", "id", "not finite", "pixels"]
KINDS: tuple[Kind, ...] = get_args(Kind)

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("kind", "image_id", "shard", "key")),
        ("row", pa.int64()),
        *((name, pa.string()) for name in ("before", "now", "reason")),
    ]
)
"""Columns of a file of findings."""

_BATCH_ROWS = 1024


class WrongRow(NamedTuple):
    """One finding about an output of earlier rules; a row that is wrong in several ways has several.

    Attributes:
        kind: `no row`: the image has no row; `label`: `true_label` is read otherwise now; `id`: several rows have the
            `image_id`, or the present rules give another; `not finite`: an answer is NaN or infinite; `pixels`: the
            image was decoded to other pixels than it is now.
        image_id: the row's `image_id`; for an image without a row, the id that the present rules give.
        shard, key, row: place of the row, as in the output. An image without a row has the key that the present rules
            give, and no row.
        before, now: label or id in the output, and by the present rules; None for other kinds.
        reason: a short text about what is wrong.
    """

    kind: Kind
    image_id: str
    shard: str
    key: str | None
    row: int | None
    before: str | None
    now: str | None
    reason: str


def write_parquet(found: Iterable[WrongRow], sink: Any) -> None:
    """Writes findings as a Parquet file into a binary stream."""
    left = iter(found)
    with pq.ParquetWriter(sink, SCHEMA, compression="zstd") as writer:
        for part in _parts(left):
            writer.write_batch(pa.RecordBatch.from_pylist([row._asdict() for row in part], schema=SCHEMA))


def write_csv(found: Iterable[WrongRow], sink: Any) -> None:
    """Writes findings as CSV in UTF-8, with the names of the columns in the first line, into a binary stream."""
    for part in _parts(iter([WrongRow._fields]), iter(found)):
        text = io.StringIO(newline="")
        csv.writer(text).writerows(part)
        sink.write(text.getvalue().encode())


def _parts(*found: Iterator[Any]) -> Iterator[list[Any]]:
    for each in found:
        while part := list(islice(each, _BATCH_ROWS)):
            yield part
