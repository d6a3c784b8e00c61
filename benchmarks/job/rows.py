"""The rows that a contender has left: whether all are there, what they say, and how fast they came."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.chunks.chunk import CHUNK_MAX_BYTES, CHUNK_MAX_RECORDS


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One entry for each row, in no order.

    Attributes:
        names: of the image's file, without folders.
        label_ids: None where a row has no label.
    """

    names: list[str]
    label_ids: list[int | None]


def read_ours(output: Path) -> tuple[Rows, int]:
    """The rows of a job of ours, and the most images that one of its chunks can have held."""
    columns = ["image_id", "label_id", "shard", "row", "net_width", "net_height"]
    table = _read(output / "data", columns).sort_by([("shard", "ascending"), ("row", "ascending")])
    sizes = zip(table["net_width"].to_pylist(), table["net_height"].to_pylist(), strict=True)
    largest = largest_chunk((width or 0) * (height or 0) * 3 for width, height in sizes)
    return Rows(names=_names(table["image_id"]), label_ids=table["label_id"].to_pylist()), largest


def read_theirs(output: Path) -> tuple[Rows, list[float]]:
    """The rows of a peer, and when each was done, in seconds."""
    table = _read(output, ["path", "label_id", "done_at"])
    return Rows(names=_names(table["path"]), label_ids=table["label_id"].to_pylist()), table["done_at"].to_pylist()


def compare(expected: Iterable[str], rows: Rows, ours: Rows) -> dict[str, int]:
    """How many of the expected images have no row, how many rows are too many, how many labels are other than ours."""
    mine = dict(zip(ours.names, ours.label_ids, strict=True))
    found = dict(zip(rows.names, rows.label_ids, strict=True))
    wanted = set(expected)
    return {
        "rows": len(rows.names),
        "rows_lost": len(wanted - set(found)),
        "rows_too_many": len(rows.names) - len(wanted & set(found)),
        "labels_that_differ": sum(label != mine[name] for name, label in found.items() if name in mine),
    }


def steady_rate(done_at: Sequence[float]) -> float:
    """Images a second from the first that were done to the last, the first not counted; 0 if all came at once.

    Args:
        done_at: seconds, one entry for each image.
    """
    first = min(done_at)
    later = [when for when in done_at if when > first]
    return len(later) / (max(later) - first) if later else 0.0


def our_steady_rate(summary: Mapping[str, Any], largest: int) -> float:
    """The same of a job of ours, whose report counts the first images too: as many as a chunk can hold are taken off.

    Args:
        summary: the last line of the job.
        largest: images of the largest chunk.
    """
    rate, listed = summary["steady_images_per_s"], summary["listed"]
    return rate * max(0, listed - largest) / listed if listed else 0.0


def largest_chunk(sizes_bytes: Iterable[int]) -> int:
    """Images of the largest chunk, where chunks are cut from images of so many decoded bytes, in this order."""
    largest = images = total = 0
    for size in sizes_bytes:
        if images and (images == CHUNK_MAX_RECORDS or total + size > CHUNK_MAX_BYTES):
            images = total = 0
        images, total = images + 1, total + size
        largest = max(largest, images)
    return largest


def _read(folder: Path, columns: list[str]) -> pa.Table:
    """All rows of a folder of Parquet files, each of which may be empty."""
    return pa.concat_tables([pq.read_table(path, columns=columns) for path in sorted(folder.rglob("*.parquet"))])


def _names(column: pa.ChunkedArray) -> list[str]:
    return [path.rpartition("/")[2] for path in column.to_pylist()]
