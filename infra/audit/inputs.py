"""The contents of the inputs: the records of every tar, Parquet file and loose image, listed into tables."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import duckdb

from infra.audit.findings import UnusableError
from infra.audit.formats import FORMATS, LOOSE_FILES, PARQUET, TAR, ShardFormat
from infra.audit.names import Selection
from infra.audit.places import Object, Store, is_inside
from infra.audit.tables import Inserts

logger = logging.getLogger(__name__)

# Number of shards that are copied from S3 into the scratch folder and read at a time.
_SHARDS = 4


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The inputs of an audit.

    Attributes:
        roots: Canonical URIs of the inputs.
        input_format: `--input-format` of the runs.
        selection: Globs by which the job chose images and shards.
    """

    roots: Sequence[str]
    input_format: str
    selection: Selection


def list_records(inputs: Inputs, store: Store, database: duckdb.DuckDBPyConnection, scratch: Path) -> None:
    """Fills the tables `records` and `shards` with all records and shards of the inputs.

    A row of `records` has id, shard, row and bytes. A row of `shards` has uri, is_read, the number of records, and the
    reason why the shard breaks off. The id is the `image_id` of the output's rows: the URI of a loose file, or
    `<shard>#<key>`. Loose files have neither shard nor row, since the job decides how they are grouped. A shard that is
    counted and not read (`ShardFormat.count`) has a false `is_read`, and its records have no bytes.

    Raises:
        UnusableError: An input is empty, or cannot be read.
    """
    shards: dict[str, tuple[Object, ShardFormat]] = {}
    records = Inserts(database, "records", ("VARCHAR", "VARCHAR", "BIGINT", "BIGINT"))
    for found, name in _listed(inputs, store):
        if name == LOOSE_FILES:
            records.add(found.uri, None, None, found.size)
        else:
            shards[found.uri] = (found, FORMATS[name])
    # img2dataset writes a table beside each tar, which is no shard.
    tars_by_name = {uri for uri, (_, kind) in shards.items() if kind is TAR and uri.endswith(".tar")}
    beside = {uri.removesuffix(".tar") + ".parquet" for uri in tars_by_name}
    taken = [entry for uri, entry in sorted(shards.items()) if entry[1] is not PARQUET or uri not in beside]
    counts = Inserts(database, "shards", ("VARCHAR", "BOOL", "BIGINT", "VARCHAR"))
    for found, (images, broken) in _read_shards(taken, inputs.selection, store, scratch):
        for row, (key, size) in enumerate(images):
            records.add(f"{found.uri}#{key}", found.uri, row, size)
        counts.add(found.uri, True, len(images), broken)
    for found, kind in taken:
        if kind.count is not None:
            num_rows, broken = kind.count(found, store, database, scratch)
            counts.add(found.uri, False, num_rows, broken)
    records.flush()
    counts.flush()
    database.execute(
        "INSERT INTO records SELECT uri || '#' || row, uri, row, NULL FROM shards, LATERAL "
        "(SELECT unnest(range(num_records)) AS row) WHERE NOT is_read"
    )


def _listed(inputs: Inputs, store: Store) -> Iterator[tuple[Object, str]]:
    """Yields each object that is a shard or a loose image of the job, and the name of its format.

    An object in several inputs belongs to the first of these inputs, and its path below this input decides the format.
    """
    for number, root in enumerate(inputs.roots):
        is_empty = True
        for found in store.list(root):
            is_empty = False
            if any(is_inside(found.uri, earlier) for earlier in inputs.roots[:number]):
                continue
            is_named = found.uri == root
            name = root.rpartition("/")[2] if is_named else found.uri[len(root) :].lstrip("/")
            kind = inputs.selection.format_name(name, input_format=inputs.input_format, is_named=is_named)
            if kind is not None:
                yield found, kind
        if is_empty:
            raise UnusableError(f"input {root}: nothing is there")
        logger.info("audit.listed input=%s", root)


_Images = tuple[list[tuple[str, int]], str | None]
_FindImages = Callable[[Path, Callable[[str], bool]], _Images]


def _read_shards(
    shards: Iterable[tuple[Object, ShardFormat]], selection: Selection, store: Store, scratch: Path
) -> Iterator[tuple[Object, _Images]]:
    """Yields each shard that is read, with its images and the reason why the shard breaks off, or None.

    A few shards are read at a time.
    """

    def read(number: int, entry: tuple[Object, _FindImages]) -> tuple[Object, _Images]:
        found, find_images = entry
        path = scratch / f"input-{number}"
        store.place(found.uri, path)
        try:
            return found, find_images(path, selection.takes_image)
        finally:
            path.unlink()

    left = ((found, kind.images) for found, kind in shards if kind.images is not None)
    with ThreadPoolExecutor(_SHARDS) as pool:
        while part := list(islice(left, _SHARDS)):
            yield from pool.map(read, range(_SHARDS), part)
