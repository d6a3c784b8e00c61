"""The published files of an output, from a listing, the index, and the footers of files newer than the index."""

import io
import logging
import sys
from collections.abc import Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import OutputError
from pipeline.output.footer import Footer
from pipeline.output.layout import DATA, INDEX_FILE, SliceName
from pipeline.store.errors import ChangedError, NotFoundError, StoreError
from pipeline.store.object_info import ObjectInfo
from pipeline.store.store_path import StorePath
from pipeline.store.uris import name_of

logger = logging.getLogger(__name__)

FOOTER_KEY = b"pvtv2"
_UNIQUE_KEY = b"unique_ids"
# Size of the first request for a footer, enough for a few row groups. A longer footer needs a second request.
_TAIL_BYTES = 64 * 1024
_MAGIC = b"PAR1"
_READ_THREADS = 16

_INDEX_SCHEMA = pa.schema(
    [
        pa.field("file", pa.string()),
        pa.field("file_etag", pa.string()),
        pa.field("shard", pa.string()),
        pa.field("slice", pa.int64()),
        pa.field("last", pa.bool_()),
        pa.field("source_etag", pa.string()),
        pa.field("rows", pa.int64()),
        pa.field("ok", pa.int64()),
        pa.field("failed", pa.int64()),
        pa.field("first_row", pa.int64()),
        pa.field("last_row", pa.int64()),
        pa.field("pruned", pa.list_(pa.int64())),
        pa.field("emptied", pa.bool_()),
        pa.field("identity", pa.string()),
        pa.field("run_id", pa.string()),
        pa.field("footer", pa.string()),
    ]
)
# Columns of the index whose attribute in `PublishedFile` has another name.
_ATTRIBUTES = {"file_etag": "etag", "last": "end", "footer": "footer_json"}
_REPEATED = ("shard", "source_etag", "identity", "run_id")
# Entries that are converted between Arrow and Python at a time.
_INDEX_ROWS = 4096


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """One output file, with the values of its footer that a plan needs.

    An output may have hundreds of thousands of files. Attributes that are not listed here are those of `Footer`.

    Attributes:
        file: Name of the file below `data/`.
        etag: ETag of the file.
        rows: Rows in the file.
        ok: Rows with a result.
        failed: Rows of failed records.
        footer_json: The whole footer as JSON, parsed on demand.
    """

    file: str
    etag: str
    shard: str
    hash16: str
    slice: int
    end: bool
    source_etag: str | None
    rows: int
    ok: int
    failed: int
    first_row: int
    last_row: int
    pruned: tuple[int, ...]
    emptied: bool
    identity: str
    run_id: str
    footer_json: str

    @property
    def footer(self) -> Footer:
        """The footer of the file, with all its fields."""
        return Footer.from_json(self.footer_json)

    @staticmethod
    def of(file: str, etag: str, footer: Footer) -> "PublishedFile":
        """Returns the `PublishedFile` for a file with this name, ETag and footer."""
        return PublishedFile(
            file=file,
            etag=etag,
            shard=footer.shard,
            hash16=footer.hash16,
            slice=footer.slice,
            end=footer.end,
            source_etag=footer.source_etag,
            rows=footer.totals.listed,
            ok=footer.totals.ok,
            failed=footer.totals.failed,
            first_row=footer.first_row,
            last_row=footer.last_row,
            pruned=footer.pruned,
            emptied=footer.emptied,
            identity=footer.identity,
            run_id=footer.run_id,
            footer_json=footer.to_json(),
        )


class OutputRow(NamedTuple):
    """One row of an output file, with the columns that a plan needs."""

    row: int
    key: str | None
    source_etag: str | None
    error_code: str | None


def list_files(output: StorePath) -> dict[str, ObjectInfo]:
    """Returns the output files that the store lists now, by name; other objects and folders are left out."""
    root = output.join(DATA)
    found = {name_of(info.uri): info for info in root.list() if info.uri.rpartition("/")[0] == root.uri}
    return {name: info for name, info in found.items() if SliceName.parse(name) is not None}


def published_files(
    output: StorePath,
    identity: str | None = None,
    known: Iterable[PublishedFile] | None = None,
    older: Container[str] = (),
) -> list[PublishedFile]:
    """Returns every output file with its footer, sorted by name.

    A footer is taken from the index if the index has the current version of the file; else the footer is read. A file
    of an older identity was read by other rules. So its source counts as changed: its `source_etag` is None.

    Args:
        output: The output folder.
        identity: Digest of the identity that every footer must have; None checks no identity.
        older: Digests of older identities, which footers may have, too.
        known: Files whose footers need not be read again; None takes the files in the index.

    Raises:
        OutputError: A footer contradicts the name of its file, has another identity, or cannot be read.
    """
    listed = list_files(output)
    by_name = {entry.file: entry for entry in (read_index(output) if known is None else known)}
    current = [by_name[name] for name, info in listed.items() if name in by_name and by_name[name].etag == info.etag]
    names = {entry.file for entry in current}
    newer = [info for name, info in listed.items() if name not in names]
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        found = current + list(pool.map(lambda info: _read_published(output, info), newer))
    for entry in found:
        if entry.identity not in older:
            _check(entry, identity, output)
    found = [replace(entry, source_etag=None) if entry.identity in older else entry for entry in found]
    return sorted(found, key=lambda entry: entry.file)


def read_index(output: StorePath) -> list[PublishedFile]:
    """Returns the files in the index; an empty list if the index is missing or unreadable.

    A missing index loses nothing, since the footers of the files hold the same values.
    """
    path = output.join(INDEX_FILE)
    try:
        index = pq.ParquetFile(io.BytesIO(path.read()))
        return [entry for batch in index.iter_batches(_INDEX_ROWS) for entry in _from_batch(batch)]
    except NotFoundError:
        return []
    except (pa.ArrowException, OSError, ValueError) as error:
        logger.warning("index.unreadable uri=%s error=%s; rebuilding it from the files", path, error)
        return []


def files_with_unique_ids(output: StorePath) -> str | None:
    """Returns the `state_of_files` for which the last writer of the index found every image id once; None if unknown.

    If the index is missing or cannot be read, nothing is known.
    """
    try:
        found = pq.read_metadata(io.BytesIO(output.join(INDEX_FILE).read())).metadata or {}
    except (StoreError, pa.ArrowException, OSError):
        return None
    return found.get(_UNIQUE_KEY, b"").decode() or None


def write_index(output: StorePath, entries: Iterable[PublishedFile], unique_ids: str | None = None) -> None:
    """Writes the index. Any run may overwrite the index, which is a cache of the footers.

    Args:
        unique_ids: The `state_of_files` of the entries if every image id of theirs was found once; None if not known.
    """
    left, buffer = iter(entries), io.BytesIO()
    schema = _INDEX_SCHEMA.with_metadata({_UNIQUE_KEY: unique_ids.encode()} if unique_ids else None)
    with pq.ParquetWriter(buffer, schema, compression="zstd") as writer:
        while part := list(islice(left, _INDEX_ROWS)):
            writer.write_batch(_to_batch(part))
    output.join(INDEX_FILE).put(buffer.getvalue())


def read_footer(file: StorePath, size: int, etag: str) -> Footer:
    """Returns the footer of an output file, by one or two small ranged reads.

    Raises:
        OutputError: The object is not an output file.
    """
    try:
        length = min(_TAIL_BYTES, size)
        tail = file.read_range(size - length, length, etag)
        needed = int.from_bytes(tail[-8:-4], "little") + 8
        if tail.endswith(_MAGIC) and length < needed <= size:
            tail = file.read_range(size - needed, needed, etag)
        return Footer.from_json(pq.read_metadata(io.BytesIO(tail)).metadata[FOOTER_KEY])
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{file} has the name of an output file but is none ({type(error).__name__}); move it away"
        ) from error


def _to_batch(entries: Sequence[PublishedFile]) -> pa.RecordBatch:
    columns = [
        pa.array([getattr(entry, _ATTRIBUTES.get(field.name, field.name)) for entry in entries], field.type)
        for field in _INDEX_SCHEMA
    ]
    return pa.record_batch(columns, schema=_INDEX_SCHEMA)


def _from_batch(batch: pa.RecordBatch) -> Iterator[PublishedFile]:
    """Yields the files in some rows of the index.

    Raises:
        ValueError: Columns or values are missing, or a name is not that of an output file.
    """
    batch = batch.cast(_INDEX_SCHEMA)
    if any(batch.column(name).null_count for name in batch.schema.names if name != "source_etag"):
        raise ValueError("it lacks values")
    for row in batch.to_pylist():
        name = SliceName.parse(row["file"])
        if name is None:
            raise ValueError(f"{row['file']} is no output file")
        values = {_ATTRIBUTES.get(column, column): value for column, value in row.items()}
        # Texts that many files share are held in memory once.
        values |= {name: sys.intern(values[name]) for name in _REPEATED if values[name] is not None}
        yield PublishedFile(hash16=sys.intern(name.hash16), **{**values, "pruned": tuple(values["pruned"])})


def read_output_rows(file: PublishedFile, output: StorePath) -> list[OutputRow]:
    """Returns the rows of an output file, reduced to the columns that a plan needs.

    If the source of the file counts as changed (`published_files`), so do the sources of its rows.

    Raises:
        OutputError: The file has changed since it was listed.
    """
    path = output.join(DATA, file.file)
    try:
        with path.open(size=_size_of(path), etag=file.etag, read_ahead=False) as source:
            table = pq.read_table(pa.PythonFile(source, mode="r"), columns=list(OutputRow._fields))
    except (NotFoundError, ChangedError) as error:
        raise OutputError(f"{path} changed while the plan was made; is another run writing here?") from error
    rows = [OutputRow(**row) for row in table.to_pylist()]
    return [row._replace(source_etag=None) for row in rows] if file.source_etag is None else rows


def _size_of(path: StorePath) -> int:
    info = path.head()
    if info is None:
        raise NotFoundError(f"{path}: not found")
    return info.size


def _read_published(output: StorePath, info: ObjectInfo) -> PublishedFile:
    return PublishedFile.of(name_of(info.uri), info.etag, read_footer(output.at(info.uri), info.size, info.etag))


def _check(entry: PublishedFile, identity: str | None, output: StorePath) -> None:
    name = SliceName.parse(entry.file)
    if name is None or (name.hash16, name.slice, name.end) != (entry.hash16, entry.slice, entry.end):
        raise OutputError(
            f"{output.join(DATA, entry.file)} says it holds slice {entry.slice} of {entry.shard}, "
            "which is not what its name says; was it copied or renamed? Move it away"
        )
    if identity is not None and entry.identity != identity:
        raise OutputError(
            f"{output.join(DATA, entry.file)} was written under another identity than {output}/_job.json; "
            "was it copied from elsewhere? Move it away"
        )
