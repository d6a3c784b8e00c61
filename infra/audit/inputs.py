"""The contents of the inputs: the records of every tar, Parquet file and loose image, listed into tables."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import duckdb

from infra.audit.findings import Findings, UnusableError
from infra.audit.formats import FORMATS, LOOSE_FILES, PARQUET, TAR, ShardFormat
from infra.audit.ids import FIRST_RULES
from infra.audit.labels import loose_label
from infra.audit.names import UNDECODED_ENDINGS, Selection, ending_of
from infra.audit.places import Object, Store, is_inside
from infra.audit.refused import HEAD_BYTES, refusal
from infra.audit.tables import Inserts
from infra.audit.tars import ShardImage

logger = logging.getLogger(__name__)

UNNAMEABLE = "its key cannot be named by a request"
# Number of loose images on S3 whose first bytes are read, and the endings of such images.
_S3_HEADS = 1000
_OFTEN_REFUSED = UNDECODED_ENDINGS | {"tif", "tiff", "jp2", "j2k", "jpf", "jpx"}
_COUNTED_RECORDS = """
INSERT INTO records
SELECT record_id(uri, n::VARCHAR), uri, n, NULL, labels.label, labels.row IS NOT NULL, refusals.refused
FROM (SELECT uri, unnest(range(num_records)) AS n FROM shards WHERE NOT is_read)
    LEFT JOIN labels ON labels.shard = uri AND labels.row = n
    LEFT JOIN refusals ON refusals.shard = uri AND refusals.row = n
"""

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


def list_records(
    inputs: Inputs, store: Store, database: duckdb.DuckDBPyConnection, scratch: Path, findings: Findings
) -> None:
    """Fills the tables `records` and `shards` with all records and shards of the inputs.

    A row of `records` has id, shard, row, bytes, label, whether the label is known, and the reason why the record
    cannot have been decoded. A row of `shards` has uri, is_read, the number of records, the reason why the shard breaks
    off, and what the audit did not read of it. The id is the `image_id` of the output's rows (`ids.py`).

    Loose files have neither shard nor row, since the job decides how they are grouped. A shard that is counted and not
    read (`ShardFormat.count`) has a false `is_read`, and its records have no bytes.

    Raises:
        UnusableError: An input is empty, or cannot be read.
    """
    shards: dict[str, tuple[Object, ShardFormat]] = {}
    unnameable: list[str] = []
    unreadable: list[tuple[str, str]] = []
    rules = inputs.selection.rules
    kinds = ("VARCHAR", "VARCHAR", "BIGINT", "BIGINT", "VARCHAR", "BOOL", "VARCHAR")
    loose = Inserts(database, "records", kinds, "object_id(v0), v1, v2, v3, v4, v5, v6")
    members = Inserts(database, "records", kinds, "record_id(v1, v0), v1, v2, v3, v4, v5, v6")
    heads = _Heads(store, rules)
    for found, name in _listed(inputs, store):
        if name == LOOSE_FILES:
            label = loose_label(found.uri, [root for root in inputs.roots if is_inside(found.uri, root)], rules)
            loose.add(found.uri, None, None, found.size, *label, heads.refusal(found))
        elif found.is_nameable:
            shards[found.uri] = (found, FORMATS[name])
        else:
            unnameable.append(found.uri)
    # img2dataset writes a table beside each tar, which is no shard.
    tars_by_name = {uri for uri, (_, kind) in shards.items() if kind is TAR and uri.endswith(".tar")}
    beside = {uri.removesuffix(".tar") + ".parquet" for uri in tars_by_name}
    taken = [entry for uri, entry in sorted(shards.items()) if entry[1] is not PARQUET or uri not in beside]
    counts = Inserts(database, "shards", ("VARCHAR", "BOOL", "BIGINT", "VARCHAR", "VARCHAR"))
    for found, (images, broken) in _read_shards(taken, inputs.selection, store, scratch):
        for row, image in enumerate(images):
            members.add(image.key, found.uri, row, image.size, image.label, image.is_known, image.refused)
        counts.add(found.uri, True, len(images), broken, None)
    for found, kind in taken:
        if kind.count is not None:
            counted = kind.count(found, store, database, scratch, rules, inputs.selection.image_column)
            counts.add(found.uri, False, counted.num_rows, counted.broken, counted.unseen)
            if counted.refused is not None:
                unreadable.append((found.uri, counted.refused))
    counts.flush()
    database.execute(_COUNTED_RECORDS)
    # One failed row stands for each of these shards.
    for uri, reason in (*((uri, UNNAMEABLE) for uri in unnameable), *unreadable):
        members.add(None, uri, 0, None, None, False, reason)
        counts.add(uri, False, 1, None, None)
    for inserts in (loose, members, counts):
        inserts.flush()
    if heads.num_passed_over:
        findings.add([f"first bytes of {heads.num_passed_over:,} loose images on S3 were not read"], is_problem=False)


def _listed(inputs: Inputs, store: Store) -> Iterator[tuple[Object, str]]:
    """Yields each object that is a shard or a loose image of the job, and the name of its format.

    An object in several inputs belongs to the first of these inputs, and its path below this input decides the format.
    """
    for number, root in enumerate(inputs.roots):
        is_empty = True
        for found in store.list(root, every_key=inputs.selection.rules != FIRST_RULES):
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


class _Heads:
    """Reads the first bytes of loose images: of all local ones, and on S3 of some with endings of refused formats.

    Attributes:
        num_passed_over: Number of images whose first bytes were not read.
    """

    def __init__(self, store: Store, rules: int) -> None:
        self.num_passed_over = 0
        self._store = store
        self._rules = rules
        self._num_left = _S3_HEADS

    def refusal(self, found: Object) -> str | None:
        """Returns the reason why a loose image cannot have been decoded; None if there is no such reason."""
        if not found.is_nameable:
            return UNNAMEABLE
        if not found.is_local:
            if self._num_left == 0 or ending_of(found.uri) not in _OFTEN_REFUSED:
                self.num_passed_over += 1
                return None
            self._num_left -= 1
            try:
                head = self._store.read_part(found.uri, 0, min(HEAD_BYTES, found.size))
            except UnusableError:
                self.num_passed_over += 1
                return None
            return refusal(lambda at, size: head[at : at + size])
        try:
            with Path(found.uri.removeprefix("file://")).open("rb") as file:
                return refusal(lambda at, size: (file.seek(at), file.read(size))[1])
        except OSError:
            self.num_passed_over += 1
            return None


_Images = tuple[list[ShardImage], str | None]
_FindImages = Callable[[Path, Callable[[str], bool], int], _Images]


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
            return found, find_images(path, selection.takes_image, selection.rules)
        finally:
            path.unlink()

    left = ((found, kind.images) for found, kind in shards if kind.images is not None)
    with ThreadPoolExecutor(_SHARDS) as pool:
        while part := list(islice(left, _SHARDS)):
            yield from pool.map(read, range(_SHARDS), part)
