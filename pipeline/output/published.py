"""What the output holds: a listing, the index, and the footers of files that are newer than the index."""

import io
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import OutputError
from pipeline.output.footer import Footer
from pipeline.output.layout import DATA, INDEX_FILE, SliceName
from pipeline.store.errors import ChangedError, NotFoundError
from pipeline.store.object_info import ObjectInfo
from pipeline.store.storage import StoreConfig, head, list_objects, open_reader, put, read, read_range
from pipeline.store.uris import join_uri, name_of

logger = logging.getLogger(__name__)

FOOTER_KEY = b"pvtv2"
# Enough for the footer of a file with a few row groups; a longer one is fetched by a second request.
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
# Columns of the index that have another name here.
_ATTRIBUTES = {"file_etag": "etag", "last": "end", "footer": "footer_json"}
_REPEATED = ("shard", "source_etag", "identity", "run_id")
# As many entries are Arrow or dictionaries at a time.
_INDEX_ROWS = 4096


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """One output file, and what its footer says that a plan needs; there may be hundreds of thousands.

    Attributes:
        file: its name below `data/`.
        etag: the file's own.
        footer_json: the whole footer, parsed when it is asked for.
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
        """All that the file says of itself."""
        return Footer.from_json(self.footer_json)

    @staticmethod
    def of(file: str, etag: str, footer: Footer) -> "PublishedFile":
        """The entry of a file with this footer."""
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
    """What a plan needs of a row in an output file."""

    row: int
    key: str | None
    source_etag: str | None
    error_code: str | None


def list_files(output: str, store: StoreConfig) -> dict[str, ObjectInfo]:
    """The output files that are visible now, by name; objects that are not ours are passed over, as are folders."""
    root = join_uri(output, DATA)
    found = {name_of(info.uri): info for info in list_objects(root, store) if info.uri.rpartition("/")[0] == root}
    return {name: info for name, info in found.items() if SliceName.parse(name) is not None}


def published_files(
    output: str, store: StoreConfig, identity: str | None = None, known: Iterable[PublishedFile] | None = None
) -> list[PublishedFile]:
    """Every output file with its footer, from the index where that is current and from the files elsewhere.

    Args:
        identity: digest that every file must carry; None does not check.
        known: files whose footers need not be read again; None takes the index.

    Raises:
        OutputError: a file's footer names another slice than its name does, or another identity, or cannot be read.
    """
    listed = list_files(output, store)
    by_name = {entry.file: entry for entry in (read_index(output, store) if known is None else known)}
    current = [by_name[name] for name, info in listed.items() if name in by_name and by_name[name].etag == info.etag]
    names = {entry.file for entry in current}
    newer = [info for name, info in listed.items() if name not in names]
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        found = current + list(pool.map(lambda info: _read_published(info, store), newer))
    for entry in found:
        _check(entry, identity, output)
    return sorted(found, key=lambda entry: entry.file)


def read_index(output: str, store: StoreConfig) -> list[PublishedFile]:
    """The index; empty if there is none or it cannot be read, since the footers say the same."""
    uri = join_uri(output, INDEX_FILE)
    try:
        index = pq.ParquetFile(io.BytesIO(read(uri, store)))
        return [entry for batch in index.iter_batches(_INDEX_ROWS) for entry in _from_batch(batch)]
    except NotFoundError:
        return []
    except (pa.ArrowException, OSError, ValueError) as error:
        logger.warning("index.unreadable uri=%s error=%s; rebuilding it from the files", uri, error)
        return []


def write_index(output: str, store: StoreConfig, entries: Iterable[PublishedFile]) -> None:
    """Writes the index; any run may overwrite it, since it is a cache of the footers."""
    left, buffer = iter(entries), io.BytesIO()
    with pq.ParquetWriter(buffer, _INDEX_SCHEMA, compression="zstd") as writer:
        while part := list(islice(left, _INDEX_ROWS)):
            writer.write_batch(_to_batch(part))
    put(join_uri(output, INDEX_FILE), buffer.getvalue(), store)


def read_footer(info: ObjectInfo, store: StoreConfig) -> Footer:
    """The footer of one output file, by one or two small ranged reads.

    Raises:
        OutputError: the object is no output file of ours.
    """
    try:
        length = min(_TAIL_BYTES, info.size)
        tail = read_range(info.uri, store, info.size - length, length, info.etag)
        needed = int.from_bytes(tail[-8:-4], "little") + 8
        if tail.endswith(_MAGIC) and length < needed <= info.size:
            tail = read_range(info.uri, store, info.size - needed, needed, info.etag)
        return Footer.from_json(pq.read_metadata(io.BytesIO(tail)).metadata[FOOTER_KEY])
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{info.uri} has the name of an output file but is none ({type(error).__name__}); move it away"
        ) from error


def _to_batch(entries: Sequence[PublishedFile]) -> pa.RecordBatch:
    columns = [
        pa.array([getattr(entry, _ATTRIBUTES.get(field.name, field.name)) for entry in entries], field.type)
        for field in _INDEX_SCHEMA
    ]
    return pa.record_batch(columns, schema=_INDEX_SCHEMA)


def _from_batch(batch: pa.RecordBatch) -> Iterator[PublishedFile]:
    """The entries in a part of the index.

    Raises:
        ValueError: it lacks columns or values, or names a file that is none of ours.
    """
    batch = batch.cast(_INDEX_SCHEMA)
    if any(batch.column(name).null_count for name in batch.schema.names if name != "source_etag"):
        raise ValueError("it lacks values")
    for row in batch.to_pylist():
        name = SliceName.parse(row["file"])
        if name is None:
            raise ValueError(f"{row['file']} is no output file")
        values = {_ATTRIBUTES.get(column, column): value for column, value in row.items()}
        # What many files have in common is kept once.
        values |= {name: sys.intern(values[name]) for name in _REPEATED if values[name] is not None}
        yield PublishedFile(hash16=sys.intern(name.hash16), **{**values, "pruned": tuple(values["pruned"])})


def read_output_rows(file: PublishedFile, output: str, store: StoreConfig) -> list[OutputRow]:
    """The rows of one output file, as far as a plan needs them.

    Raises:
        OutputError: it changed since it was listed.
    """
    uri = join_uri(output, DATA, file.file)
    try:
        with open_reader(uri, store, size=_size_of(uri, store), etag=file.etag, read_ahead=False) as source:
            table = pq.read_table(pa.PythonFile(source, mode="r"), columns=list(OutputRow._fields))
    except (NotFoundError, ChangedError) as error:
        raise OutputError(f"{uri} changed while the plan was made; is another run writing here?") from error
    return [OutputRow(**row) for row in table.to_pylist()]


def _size_of(uri: str, store: StoreConfig) -> int:
    info = head(uri, store)
    if info is None:
        raise NotFoundError(f"{uri}: not found")
    return info.size


def _read_published(info: ObjectInfo, store: StoreConfig) -> PublishedFile:
    return PublishedFile.of(name_of(info.uri), info.etag, read_footer(info, store))


def _check(entry: PublishedFile, identity: str | None, output: str) -> None:
    name = SliceName.parse(entry.file)
    if name is None or (name.hash16, name.slice, name.end) != (entry.hash16, entry.slice, entry.end):
        raise OutputError(
            f"{join_uri(output, DATA, entry.file)} says it holds slice {entry.slice} of {entry.shard}, "
            "which is not what its name says; was it copied or renamed? Move it away"
        )
    if identity is not None and entry.identity != identity:
        raise OutputError(
            f"{join_uri(output, DATA, entry.file)} was written under another identity than {output}/_job.json; "
            "was it copied from elsewhere? Move it away"
        )
