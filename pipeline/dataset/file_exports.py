"""Exports that are one file in the output: CSV, COCO's JSON, and Parquet for Hugging Face's `datasets`."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from pipeline.dataset.labels import LABEL_SCHEMA
from pipeline.inputs.formats import FILES_SCHEME, TAR, format_of
from pipeline.inputs.ids import loose_uri
from pipeline.publish.spill import on_disk_if_it_can
from pipeline.store.uris import is_inside, shown

# A function that yields all rows of a data set each time it is called.
Rows = Callable[[], Iterator[pa.RecordBatch]]
# A function from (rows, classes, the job's inputs) to the bytes of the file.
MakeFile = Callable[[Rows, Sequence[str], Sequence[str]], memoryview]


@dataclass(frozen=True, slots=True)
class FileExport:
    """An export that is one file in the output's `dataset/`.

    Attributes:
        file_name: Name of the file.
        make: Function that makes the file.
    """

    file_name: str
    make: MakeFile


def accepted(rows: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
    """Yields the accepted rows as dictionaries."""
    for batch in rows:
        yield from (row for row in batch.to_pylist() if row["decision"] == "accepted")


def relative_name(uri: str, roots: Sequence[str]) -> str:
    """Returns an object's path below the input that holds the object; the object's URI if no input holds the object."""
    root = next((root for root in roots if is_inside(uri, root) and uri != root), None)
    return uri if root is None else uri[len(root) :].lstrip("/")


def member_name(row: Mapping[str, Any]) -> str:
    """Returns the name of an image in its tar: the key, without the ending `@<row>` of a repeated key."""
    return str(row["key"]).removesuffix(f"@{row['row']}")


def make_csv(rows: Rows, classes: Sequence[str], roots: Sequence[str]) -> memoryview:
    """Returns all rows and columns of the data set as CSV with a header."""

    def write(sink: Any) -> None:
        with pacsv.CSVWriter(sink, LABEL_SCHEMA) as writer:
            for batch in rows():
                writer.write_batch(batch)

    return in_file(write)


def make_coco(rows: Rows, classes: Sequence[str], roots: Sequence[str]) -> memoryview:
    """Returns the accepted rows as COCO's JSON; each image has one annotation, which covers the whole image.

    `file_name` is the path below the input. For an image in a tar, `file_name` is the name of the member, and `shard`
    is the path of the tar.
    """
    numbers = {label: number for number, label in enumerate(classes)}

    def image(index: int, row: Mapping[str, Any]) -> dict[str, Any]:
        size = {"width": row["width"], "height": row["height"]}
        if row["shard"].startswith(FILES_SCHEME):
            return {"id": index, "file_name": relative_name(loose_uri(row["image_id"]), roots), **size}
        return {"id": index, "file_name": member_name(row), "shard": relative_name(row["shard"], roots), **size}

    def annotation(index: int, row: Mapping[str, Any]) -> dict[str, Any]:
        width, height = row["width"] or 0, row["height"] or 0
        return {
            "id": index,
            "image_id": index,
            "category_id": numbers[row["label"]],
            "bbox": [0, 0, width, height],
            "area": width * height,
            "iscrowd": 0,
            "score": row["score"],
            "label_source": row["label_source"],
        }

    def write(sink: Any) -> None:
        categories = [{"id": number, "name": label} for number, label in enumerate(classes)]
        sink.write(f'{{"info": {{}}, "licenses": [], "categories": {json.dumps(categories)}'.encode())
        for name, entry in (("images", image), ("annotations", annotation)):
            sink.write(f',\n"{name}": ['.encode())
            for index, row in enumerate(accepted(rows())):
                sink.write((",\n" if index else "\n").encode() + json.dumps(entry(index, row)).encode())
            sink.write(b"]")
        sink.write(b"}\n")

    return in_file(write)


def make_huggingface(rows: Rows, classes: Sequence[str], roots: Sequence[str]) -> memoryview:
    """Returns the accepted rows as Parquet; the metadata declares the columns of images and classes for `datasets`.

    Images are not copied: `image.path` is the path of an image, which `datasets` opens when the row is used. Images in
    Parquet shards have no such path, so their rows are left out.
    """
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": list(classes)},
        "score": {"_type": "Value", "dtype": "float32"},
        "label_source": {"_type": "Value", "dtype": "string"},
        "image_id": {"_type": "Value", "dtype": "string"},
    }
    image = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
    columns = [("image", image), ("label", pa.int64()), ("score", pa.float32())]
    schema = pa.schema([*columns, ("label_source", pa.string()), ("image_id", pa.string())])
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    numbers = {label: number for number, label in enumerate(classes)}

    def table(batch: pa.RecordBatch) -> pa.Table:
        entries = [
            {
                "image": {"bytes": None, "path": path},
                "label": numbers[row["label"]],
                "score": row["score"],
                "label_source": row["label_source"],
                "image_id": row["image_id"],
            }
            for row in accepted(iter([batch]))
            if (path := image_path(row)) is not None
        ]
        return pa.Table.from_pylist(entries, schema)

    def write(sink: Any) -> None:
        with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
            for batch in rows():
                writer.write_table(table(batch))

    return in_file(write)


def image_path(row: Mapping[str, Any]) -> str | None:
    """Returns the path by which fsspec opens an image; None if there is no such path.

    The path is a local path, a URI, or `tar://member::tar`.

    An image whose name holds `::` has no such path. fsspec goes from one file to the next at `::`, so that a member
    named `x::/another.tar::y` would make fsspec open another file.
    """
    if any("::" in (row[name] or "") for name in ("shard", "key", "image_id")):
        return None
    if row["shard"].startswith(FILES_SCHEME):
        return shown(loose_uri(row["image_id"]))
    if format_of(row["shard"]) not in (TAR, None) or row["key"] is None or row["key"] != member_name(row):
        return None
    return f"tar://{row['key']}::{shown(row['shard'])}"


def in_file(write: Callable[[Any], None]) -> memoryview:
    """Returns the bytes that a function writes; the bytes lie on the local disk, or in memory if the disk is full."""
    return memoryview(on_disk_if_it_can(write)).cast("B")


FILES: Mapping[str, FileExport] = {
    "csv": FileExport("labels.csv", make_csv),
    "coco": FileExport("coco.json", make_coco),
    "huggingface": FileExport("huggingface.parquet", make_huggingface),
}
