"""What the inputs hold: the records of every tar, Parquet file and loose image, listed into tables."""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import duckdb

from infra.audit.findings import UnusableError
from infra.audit.names import Kind, Selection
from infra.audit.places import Object, Store, is_inside
from infra.audit.tables import Inserts, first_line
from infra.audit.tars import tar_images

logger = logging.getLogger(__name__)

# Tars that are copied from S3 and read at a time; as many lie in the scratch folder.
_TARS = 4


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is listed, and how.

    Attributes:
        roots: canonical URIs.
        input_format: `--input-format` of the runs.
        selection: the output's globs.
    """

    roots: Sequence[str]
    input_format: str
    selection: Selection


def list_records(inputs: Inputs, store: Store, database: duckdb.DuckDBPyConnection, scratch: Path) -> None:
    """Fills `records` (id, shard, row, bytes) and `shards` (uri, kind, number of records, why it breaks off).

    The id is that of the output's rows: a loose file's URI, or `<shard>#<key>`. Loose files have neither shard nor row,
    since which of them make a group the job decides; rows of Parquet files have no bytes, since they are not read.

    Raises:
        UnusableError: there is nothing at an input, or it cannot be read.
    """
    shards: dict[str, tuple[Kind, Object]] = {}
    records = Inserts(database, "records", ("VARCHAR", "VARCHAR", "BIGINT", "BIGINT"))
    for found, kind in _listed(inputs, store):
        if kind == "files":
            records.add(found.uri, None, None, found.size)
        else:
            shards[found.uri] = (kind, found)
    # img2dataset writes a table beside each tar.
    tars_by_name = {uri for uri, (kind, _) in shards.items() if kind == "tar" and uri.endswith(".tar")}
    beside = {uri.removesuffix(".tar") + ".parquet" for uri in tars_by_name}
    taken = {uri: entry for uri, entry in sorted(shards.items()) if entry[0] == "tar" or uri not in beside}
    counts = Inserts(database, "shards", ("VARCHAR", "VARCHAR", "BIGINT", "VARCHAR"))
    tars = [found for kind, found in taken.values() if kind == "tar"]
    for found, (images, broken) in _read_tars(tars, inputs.selection, store, scratch):
        for row, (key, size) in enumerate(images):
            records.add(f"{found.uri}#{key}", found.uri, row, size)
        counts.add(found.uri, "tar", len(images), broken)
    for kind, found in taken.values():
        if kind == "parquet":
            num_rows, broken = _count_rows(found, store, database, scratch)
            counts.add(found.uri, "parquet", num_rows, broken)
    records.flush()
    counts.flush()
    database.execute(
        "INSERT INTO records SELECT uri || '#' || row, uri, row, NULL FROM shards, LATERAL "
        "(SELECT unnest(range(num_records)) AS row) WHERE kind = 'parquet'"
    )


def _listed(inputs: Inputs, store: Store) -> Iterator[tuple[Object, Kind]]:
    """What takes part; an object in several inputs belongs to the first, whose name for it decides."""
    for number, root in enumerate(inputs.roots):
        is_empty = True
        for found in store.list(root):
            is_empty = False
            if any(is_inside(found.uri, earlier) for earlier in inputs.roots[:number]):
                continue
            is_named = found.uri == root
            name = root.rpartition("/")[2] if is_named else found.uri[len(root) :].lstrip("/")
            kind = inputs.selection.kind_of(name, input_format=inputs.input_format, is_named=is_named)
            if kind is not None:
                yield found, kind
        if is_empty:
            raise UnusableError(f"input {root}: nothing is there")
        logger.info("audit.listed input=%s", root)


_TarImages = tuple[list[tuple[str, int]], str | None]


def _read_tars(
    tars: Sequence[Object], selection: Selection, store: Store, scratch: Path
) -> Iterator[tuple[Object, _TarImages]]:
    """Each tar with its images and why it breaks off, a few at a time."""

    def read(number: int, found: Object) -> _TarImages:
        path = scratch / f"input-{number}.tar"
        store.place(found.uri, path)
        try:
            return tar_images(path, selection.takes_image)
        finally:
            path.unlink()

    left = iter(tars)
    with ThreadPoolExecutor(_TARS) as pool:
        while part := list(islice(left, _TARS)):
            yield from zip(part, pool.map(read, range(_TARS), part), strict=True)


def _count_rows(
    found: Object, store: Store, database: duckdb.DuckDBPyConnection, scratch: Path
) -> tuple[int, str | None]:
    """The rows that a Parquet file's footer promises, and why there is no footer."""
    path = scratch / "input.parquet"
    store.place_footer(found, path)
    try:
        counted = database.execute("SELECT num_rows FROM parquet_file_metadata(?)", [str(path)]).fetchone()
    except duckdb.Error as error:
        return 0, first_line(error).replace(f"'{path}'", "it")
    finally:
        path.unlink()
    assert counted is not None
    return counted[0], None
