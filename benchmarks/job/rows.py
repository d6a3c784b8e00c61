"""The rows that a contender has written: their completeness, their labels, and the rate of writing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.chunks.chunk import CHUNK_MAX_BYTES, CHUNK_MAX_RECORDS


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Names and labels of rows, with one entry for each row, in no particular order.

    Attributes:
        names: Name of each image's file, without folders.
        label_ids: Label of each row; None where a row has no label.
    """

    names: list[str]
    label_ids: list[int | None]


def read_ours(output: Path) -> tuple[Rows, int]:
    """Returns the rows of our job, and the largest possible number of images in one of its chunks."""
    columns = ["image_id", "label_id", "shard", "row", "net_width", "net_height"]
    table = _read(output / "data", columns).sort_by([("shard", "ascending"), ("row", "ascending")])
    sizes = zip(table["net_width"].to_pylist(), table["net_height"].to_pylist(), strict=True)
    largest = largest_chunk((width or 0) * (height or 0) * 3 for width, height in sizes)
    return Rows(names=_names(table["image_id"]), label_ids=table["label_id"].to_pylist()), largest


def read_theirs(output: Path) -> tuple[Rows, list[float]]:
    """Returns the rows of a peer, and the time in seconds at which each row was done."""
    table = _read(output, ["path", "label_id", "done_at"])
    return Rows(names=_names(table["path"]), label_ids=table["label_id"].to_pylist()), table["done_at"].to_pylist()


def compare(expected: Iterable[str], rows: Rows, ours: Rows) -> dict[str, int]:
    """Counts the rows, the expected images without a row, the surplus rows, and the labels that differ from ours."""
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
    """Returns images per second from the time when the first images were done; 0 if all were done at one time.

    Args:
        done_at: Time in seconds at which each image was done.
    """
    first = min(done_at)
    later = [when for when in done_at if when > first]
    return len(later) / (max(later) - first) if later else 0.0


def our_steady_rate(summary: Mapping[str, Any], largest: int) -> float:
    """Returns the steady rate of our job without its first chunk, which the job's own report counts.

    Args:
        summary: Summary of the job, from its last line of stdout.
        largest: Number of images in the largest chunk, which is subtracted from the number of all images.
    """
    rate, listed = summary["steady_images_per_s"], summary["listed"]
    return rate * max(0, listed - largest) / listed if listed else 0.0


def largest_chunk(sizes_bytes: Iterable[int]) -> int:
    """Returns the number of images in the largest chunk that our job makes of images in this order."""
    largest = images = total = 0
    for size in sizes_bytes:
        if images and (images == CHUNK_MAX_RECORDS or total + size > CHUNK_MAX_BYTES):
            images = total = 0
        images, total = images + 1, total + size
        largest = max(largest, images)
    return largest


def _read(folder: Path, columns: list[str]) -> pa.Table:
    """Returns all rows in a folder of Parquet files, any of which may be empty."""
    return pa.concat_tables([pq.read_table(path, columns=columns) for path in sorted(folder.rglob("*.parquet"))])


def _names(column: pa.ChunkedArray) -> list[str]:
    return [path.rpartition("/")[2] for path in column.to_pylist()]
