"""`dataset/labels.parquet`: the data set as others read it, and what it says of how it was made.

One object, exchanged by one conditional write, so that whoever reads it has a whole data set of one moment. Its footer
holds the version of all that it was made of; a run that comes to the same version has nothing to do.
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

# What gives some rows, each time all of them.
Rows = Callable[[], Iterable[pa.RecordBatch]]


@dataclass(frozen=True, kw_only=True)
class DatasetFooter:
    """What a data set says of itself.

    Attributes:
        version: of what it was made of, see `dataset_version`.
        run_id: the run that made it; `runs/<run_id>/changes.parquet` leads to it from the one before.
        previous_run_id: the run that made the one before; None: there was none.
        classes: its labels; a class' number is its place here, and stays.
        counts: its rows by decision, and together.
    """

    version: str
    run_id: str
    previous_run_id: str | None
    classes: tuple[str, ...]
    counts: Mapping[str, int]

    def to_json(self) -> str:
        """The footer as it is stored."""
        return json.dumps({"schema_version": _SCHEMA_VERSION, **asdict(self)}, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Published:
    """A data set that is there.

    Attributes:
        file: Where it lies.
        size: Size of the file in bytes.
        etag: Version of the file.
    """

    file: StorePath
    size: int
    etag: str
    footer: DatasetFooter


def labels_file(output: StorePath) -> StorePath:
    """Where the data set of an output lies."""
    return output.join(DATASET, LABELS_FILE)


def dataset_version(
    files: Iterable[PublishedFile], overrides: Iterable[ObjectInfo], policy_digest: str, half_read: Sequence[str]
) -> str:
    """The version of all that a data set is made of: rows, corrections and policy; 64 hex digits."""
    parts = [
        _SCHEMA_VERSION,
        sorted((file.file, file.etag) for file in files),
        [(info.uri, info.etag) for info in overrides],
        policy_digest,
        sorted(half_read),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def find_published(output: StorePath) -> Published | None:
    """The data set that an output has; None if it has none yet.

    Raises:
        OutputError: something else lies under its name.
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
    """The rows of a data set, a batch at a time; none if there is no data set."""
    if published is None:
        return
    with closing(_open(published.file, published.size, published.etag)) as source:
        for batch in pq.ParquetFile(source).iter_batches(columns=LABEL_SCHEMA.names):
            yield batch.replace_schema_metadata(None).cast(LABEL_SCHEMA)


def publish(output: StorePath, rows: Rows, footer: DatasetFooter, before: Published | None) -> Published:
    """Puts a data set in the place of the one before.

    Args:
        rows: as many as the footer counts.

    Raises:
        OutputError: that one is there no more, or another one is.
        StoreError: the store refuses.
    """
    body = to_parquet(rows, LABEL_SCHEMA, {FOOTER_KEY.decode(): footer.to_json()})
    file, etag_before = labels_file(output), None if before is None else before.etag
    try:
        etag = file.put(body, if_absent=before is None, if_match=etag_before)
    except (ExistsError, ChangedError) as error:
        raise OutputError(f"{file.shown} was exchanged meanwhile; is something else writing there?") from error
    return Published(file, len(body), etag, footer)


def to_parquet(rows: Rows, schema: pa.Schema, metadata: dict[str, Any]) -> memoryview:
    """A Parquet file of rows, on the local disk or, where that is full, in memory."""

    def write(sink: Any) -> None:
        with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
            # Anew: what was tried on the disk may have taken some.
            for batch in rows():
                writer.write_batch(batch)
            writer.add_key_value_metadata(metadata)

    return memoryview(on_disk_if_it_can(write)).cast("B")


def _open(file: StorePath, size: int, etag: str) -> BinaryIO:
    return file.open(size=size, etag=etag, read_ahead=False)
