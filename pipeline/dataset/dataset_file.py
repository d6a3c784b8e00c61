"""`dataset/labels.parquet`: the published data set, with a footer that says how it was made.

The data set is one object, which one conditional write replaces, so that every reader gets a whole data set. The footer
holds the version of the rows, corrections and policy that the data set was made of. A run that computes the same
version has nothing to do.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.labels import LABEL_SCHEMA
from pipeline.errors import OutputError
from pipeline.output.published import PublishedFile
from pipeline.publish.spill import on_disk_if_it_can
from pipeline.store.errors import ChangedError, ExistsError
from pipeline.store.object_info import ObjectInfo
from pipeline.store.store_path import StorePath

DATASET = "dataset"
LABELS_FILE = "labels.parquet"
FOOTER_KEY = b"pvtv2_dataset"
_SCHEMA_VERSION = 1
# Version of the rules by which rows are decided on. A data set that was made by other rules is made again. Since
# version 2, a row whose score is not finite has failed.
_RULES = 2

# A function that yields all rows each time it is called.
Rows = Callable[[], Iterable[pa.RecordBatch]]


@dataclass(frozen=True, kw_only=True)
class DatasetFooter:
    """The description of a data set, which its file holds as metadata.

    Attributes:
        version: Version of the rows, corrections and policy that the data set was made of (`dataset_version`).
        run_id: Id of the run that made the data set; `runs/<run_id>/changes.parquet` holds its changes.
        previous_run_id: Id of the run that made the previous data set; None for the first data set.
        classes: Labels of the data set. The index of a label is the number of its class, and never changes.
        counts: Number of rows by decision, and in total.
    """

    version: str
    run_id: str
    previous_run_id: str | None
    classes: tuple[str, ...]
    counts: Mapping[str, int]

    def to_json(self) -> str:
        """Returns the footer as the JSON text that the file holds."""
        return json.dumps({"schema_version": _SCHEMA_VERSION, **asdict(self)}, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Published:
    """A published data set.

    Attributes:
        file: Path of the data set's file in the store.
        size: Size of the file in bytes.
        etag: ETag of the file.
        footer: Footer of the file.
    """

    file: StorePath
    size: int
    etag: str
    footer: DatasetFooter


def labels_file(output: StorePath) -> StorePath:
    """Returns the path of the data set's file in an output."""
    return output.join(DATASET, LABELS_FILE)


def dataset_version(
    files: Iterable[PublishedFile], overrides: Iterable[ObjectInfo], policy_digest: str, half_read: Sequence[str]
) -> str:
    """Returns the version of the rows, corrections and policy that a data set is made of, as 64 hex digits."""
    parts = [
        _SCHEMA_VERSION,
        _RULES,
        sorted((file.file, file.etag) for file in files),
        [(info.uri, info.etag) for info in overrides],
        policy_digest,
        sorted(half_read),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def find_published(output: StorePath) -> Published | None:
    """Returns the data set of an output; None if the output has no data set yet.

    Raises:
        OutputError: Another kind of file has the name of the data set.
    """
    file = labels_file(output)
    info = file.head()
    if info is None:
        return None
    try:
        with closing(_open(file, info.size, info.etag)) as source:
            values = json.loads(pq.read_metadata(source).metadata[FOOTER_KEY])
        if values.pop("schema_version") != _SCHEMA_VERSION:
            raise ValueError("it is of another version of this program")
        return Published(file, info.size, info.etag, DatasetFooter(**{**values, "classes": tuple(values["classes"])}))
    except (pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{file.shown} is no data set of ours ({type(error).__name__}: {error}); move it away"
        ) from error


def published_rows(published: Published | None) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a data set, batch by batch; yields nothing if there is no data set."""
    if published is None:
        return
    with closing(_open(published.file, published.size, published.etag)) as source:
        for batch in pq.ParquetFile(source).iter_batches(columns=LABEL_SCHEMA.names):
            yield batch.replace_schema_metadata(None).cast(LABEL_SCHEMA)


def publish(output: StorePath, rows: Rows, footer: DatasetFooter, before: Published | None) -> Published:
    """Publishes a data set, which replaces the previous data set.

    Args:
        rows: Function that yields all rows of the new data set.
        footer: Footer of the new data set.
        before: The data set that is replaced; None if there is none.

    Raises:
        OutputError: Another process has replaced or removed the previous data set meanwhile.
        StoreError: The store refuses the write.
    """
    body = to_parquet(rows, LABEL_SCHEMA, {FOOTER_KEY.decode(): footer.to_json()})
    file, etag_before = labels_file(output), None if before is None else before.etag
    try:
        etag = file.put(body, if_absent=before is None, if_match=etag_before)
    except (ExistsError, ChangedError) as error:
        raise OutputError(f"{file.shown} was exchanged meanwhile; is something else writing there?") from error
    return Published(file, len(body), etag, footer)


def to_parquet(rows: Rows, schema: pa.Schema, metadata: dict[str, Any]) -> memoryview:
    """Returns the bytes of a Parquet file; the bytes lie on the local disk, or in memory if the disk is full."""

    def write(sink: Any) -> None:
        with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
            # Rows are read from the start, because a failed attempt on the disk may have consumed some rows.
            for batch in rows():
                writer.write_batch(batch)
            writer.add_key_value_metadata(metadata)

    return memoryview(on_disk_if_it_can(write)).cast("B")


def _open(file: StorePath, size: int, etag: str) -> BinaryIO:
    return file.open(size=size, etag=etag, read_ahead=False)
