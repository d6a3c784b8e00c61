"""The rows of a Parquet file, counted by DuckDB from the footer alone; labels and first bytes of images, read apart."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from infra.audit.findings import UnusableError
from infra.audit.ids import FIRST_RULES
from infra.audit.labels import by_likelihood
from infra.audit.places import Object, Store
from infra.audit.refused import HEAD_BYTES, refusal
from infra.audit.tables import Inserts, first_line

WHOLE_BYTES = 64 * 2**20
"""Largest Parquet file that is read whole: copied from S3 for its labels, or read for the first bytes of images."""

_FREE_ROWS, _ROWS_PER_BYTE = 2**16, 8
_IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "content", "data")
_FIRST_LABELS = ("label", "cls", "class")
_WHOLE_NUMBERS = frozenset((
    "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT",
))  # fmt: skip
_SUM_OF_GROUPS = """
SELECT coalesce(sum(rows), 0), coalesce(min(rows), 0)
FROM (SELECT DISTINCT row_group_id, row_group_num_rows AS rows FROM parquet_metadata(?))
"""
_READ = "read_parquet(?, file_row_number = true)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """The rows that a Parquet file must have.

    Attributes:
        num_rows: Number of rows by the footer.
        broken: Reason why the rows cannot be counted; None if they were counted.
        refused: Reason why the whole file must be one failed row; None if it has a row for each of its own rows.
        unseen: Reason why labels, or first bytes of images, were not read; None if they were read.
    """

    num_rows: int = 0
    broken: str | None = None
    refused: str | None = None
    unseen: str | None = None


@dataclass(frozen=True, slots=True)
class _Column:
    """A top-level column; `kind` is `bytes`, `text`, `file` (a struct with a field of bytes), `nested` or `other`."""

    name: str
    kind: str


def count_rows(
    found: Object,
    store: Store,
    database: duckdb.DuckDBPyConnection,
    scratch: Path,
    rules: int = FIRST_RULES,
    image_column: str | None = None,
) -> Counted:
    """Counts the rows of a Parquet file, and fills the tables `labels` and `refusals` with what its rows show."""
    path = scratch / "input.parquet"
    is_whole = found.is_local or found.size <= WHOLE_BYTES
    (store.place if is_whole else store.place_footer)(*((found.uri, path) if is_whole else (found, path)))
    try:
        counted = _counted(found, path, database, rules, image_column)
        if counted.broken is not None or counted.refused is not None:
            return counted
        unseen = (
            _read_cells(found, path, store, database, rules, image_column) if is_whole else "it lies on S3 and is large"
        )
        return Counted(num_rows=counted.num_rows, unseen=unseen)
    except duckdb.Error as error:
        return Counted(broken=first_line(error).replace(f"'{path}'", "it"))
    finally:
        path.unlink()


def _counted(
    found: Object, path: Path, database: duckdb.DuckDBPyConnection, rules: int, image_column: str | None
) -> Counted:
    (num_rows,) = _one(database, "SELECT num_rows FROM parquet_file_metadata(?)", path)
    if rules == FIRST_RULES:
        return Counted(num_rows=num_rows)
    in_groups, fewest = _one(database, _SUM_OF_GROUPS, path)
    if min(num_rows, fewest) < 0:
        return Counted(refused="its footer claims a negative number of rows")
    num_rows = max(num_rows, int(in_groups))
    if num_rows > _FREE_ROWS + _ROWS_PER_BYTE * found.size:
        return Counted(refused=f"its footer claims {num_rows:,} rows, too many for {found.size:,} bytes")
    if _image_column(_columns(path, database), image_column) is None:
        return Counted(refused="it has no column of images")
    return Counted(num_rows=num_rows)


def _one(database: duckdb.DuckDBPyConnection, query: str, path: Path) -> tuple[Any, ...]:
    return database.execute(query, [str(path)]).fetchone() or ()


def _columns(path: Path, database: duckdb.DuckDBPyConnection) -> list[_Column]:
    """Returns the top-level columns in the order of the file."""
    query = (
        "SELECT name, type, coalesce(num_children, 0), repetition_type, converted_type, logical_type "
        "FROM parquet_schema(?)"
    )
    nodes = iter(database.execute(query, [str(path)]).fetchall())
    (_, _, num_columns, *_) = next(nodes)

    def take() -> _Column:
        name, kind, num_children, repetition, converted, logical = next(nodes)
        children = [take() for _ in range(num_children)]
        if children:
            is_struct = repetition != "REPEATED" and converted is None and logical is None
            is_file = is_struct and any(child == _Column("bytes", "bytes") for child in children)
            return _Column(name, "file" if is_file else "nested")
        if repetition == "REPEATED" or kind != "BYTE_ARRAY":
            return _Column(name, "nested" if repetition == "REPEATED" else "other")
        is_plain = (converted or "ENUM") in ("ENUM", "BSON") and "Decimal" not in (logical or "")
        return _Column(name, "bytes" if is_plain else "text" if converted in ("UTF8", "JSON") else "other")

    return [take() for _ in range(num_columns)]


def _image_column(columns: Sequence[_Column], named: str | None) -> _Column | None:
    """Returns the column of images; None if there is none."""
    if named is not None:
        column = next((column for column in columns if column.name == named), None)
        return column if column is not None and column.kind in ("file", "bytes", "text") else None
    of_kind = {
        kind: {column.name.lower(): column for column in reversed(columns) if column.kind == kind}
        for kind in ("file", "bytes")
    }
    files, plain = of_kind["file"], of_kind["bytes"]
    found = [files[name] for name in _IMAGE_COLUMNS if name in files]
    found += files.values() if len(files) == 1 else ()
    found += [plain[name] for name in _IMAGE_COLUMNS if name in plain]
    return found[0] if found else None


def _read_cells(
    found: Object, path: Path, store: Store, database: duckdb.DuckDBPyConnection, rules: int, image_column: str | None
) -> str | None:
    """Fills `labels` and `refusals`; returns the reason why something was not read, or None."""
    try:
        columns = _columns(path, database)
        image = _image_column(columns, image_column)
        unseen = _read_labels(found.uri, path, columns, image, store, database, rules)
        if image is None or found.size > WHOLE_BYTES:
            return unseen or "first bytes of its images, since it is large"
        return _read_heads(found.uri, path, columns, image, database) or unseen
    except duckdb.Error as error:
        return first_line(error).replace(f"'{path}'", "it")


def _read_labels(
    uri: str, path: Path, columns: Sequence[_Column], image: _Column | None, store: Store,
    database: duckdb.DuckDBPyConnection, rules: int,
) -> str | None:  # fmt: skip
    names = [column.name for column in columns if column is not image]
    flat = [column.name for column in columns if column is not image and column.kind not in ("file", "nested")]
    known = [name for name in _FIRST_LABELS if name in names] if rules == FIRST_RULES else by_likelihood(flat)
    if not known:
        database.execute(f"INSERT INTO labels SELECT ?, file_row_number, NULL FROM {_READ}", [uri, str(path)])
        return None
    name = known[0]
    if Counter(column.name.lower() for column in columns)[name.lower()] > 1:
        return f"several columns are named {name!r}"
    quoted = '"' + name.replace('"', '""') + '"'
    (kind,) = _one(database, f"SELECT column_type FROM (DESCRIBE SELECT {quoted} FROM read_parquet(?))", path)
    texts = _as_text(quoted, kind, rules)
    if texts is None:
        return f"labels of type {kind}"
    text, is_known = texts
    classes = [] if rules == FIRST_RULES or kind == "VARCHAR" else _class_names(path, name, database)
    if not classes and rules != FIRST_RULES and kind in _WHOLE_NUMBERS:
        classes = _names_beside(uri, name, store)
    if classes:
        text = f"CASE WHEN {text} = '-1' THEN NULL ELSE coalesce($3[TRY_CAST({text} AS BIGINT) + 1], {text}) END"
    database.execute(
        f"INSERT INTO labels SELECT $1, file_row_number, {text} FROM {_READ.replace('?', '$2')} WHERE {is_known}",
        [uri, str(path), *([classes] if classes else [])],
    )
    return None


def _as_text(value: str, kind: str, rules: int) -> tuple[str, str] | None:
    """Returns SQL for the text of a label, and for whether the text is known; None for a type that is not compared."""
    if kind == "VARCHAR":
        return value, "true"
    if kind in _WHOLE_NUMBERS or kind == "BOOLEAN":
        return f"{value}::VARCHAR", "true"
    if rules == FIRST_RULES:
        return None
    if kind in ("FLOAT", "DOUBLE"):
        whole = f"({value} = trunc({value}) AND abs({value}) < 9007199254740992)"
        text = f"if(isnan({value}), NULL, TRY_CAST({value} AS BIGINT)::VARCHAR)"
        return text, f"{value} IS NULL OR isnan({value}) OR {whole}"
    if kind.startswith("DECIMAL"):
        return f"TRY_CAST({value} AS HUGEINT)::VARCHAR", f"{value} IS NULL OR {value} = trunc({value})"
    if kind == "BLOB":
        return f"TRY(decode({value}))", f"{value} IS NULL OR TRY(decode({value})) IS NOT NULL"
    return None


def _class_names(path: Path, column: str, database: duckdb.DuckDBPyConnection) -> list[str]:
    """Returns the names of the classes that Hugging Face's metadata give for a column; none without such metadata."""
    found = _one(database, "SELECT value FROM parquet_kv_metadata(?) WHERE key = 'huggingface'::BLOB", path)
    try:
        return _names_of(json.loads(found[0])["info"], column)
    except (IndexError, KeyError, TypeError, ValueError, RecursionError):
        return []


def _names_beside(uri: str, column: str, store: Store) -> list[str]:
    """Returns the names of the classes that a data set's own file gives for a column; it lies beside or one up."""
    folder = uri.rpartition("/")[0]
    for place in (folder, folder.rpartition("/")[0]):
        for name in ("dataset_infos.json", "dataset_info.json") if place.partition("://")[2] else ():
            try:
                content = store.read(f"{place}/{name}")
            except UnusableError:
                continue
            if content is not None:
                return _names_in(content, column)
    return []


def _names_in(content: bytes, column: str) -> list[str]:
    try:
        stored = json.loads(content)
        entries = [stored] if "features" in stored else list(stored.values())
    except (AttributeError, TypeError, ValueError, RecursionError):
        return []
    found = {tuple(_names_of(entry, column)) for entry in entries} - {()}
    return list(found.pop()) if len(found) == 1 else []


def _names_of(info: Any, column: str) -> list[str]:
    try:
        feature = info["features"][column]
        names = feature["names"] if feature["_type"] == "ClassLabel" else []
    except (KeyError, TypeError, IndexError):
        return []
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def _read_heads(
    uri: str, path: Path, columns: Sequence[_Column], image: _Column, database: duckdb.DuckDBPyConnection
) -> str | None:
    if Counter(column.name.lower() for column in columns)[image.name.lower()] > 1:
        return f"several columns are named {image.name!r}"
    if image.kind == "text":
        return "images in a column of text"
    value = '"' + image.name.replace('"', '""') + '"' + (".bytes" if image.kind == "file" else "")
    cells = database.cursor()
    query = f"SELECT file_row_number, {value}[1:{HEAD_BYTES}] FROM {_READ} WHERE {value} IS NOT NULL"
    cells.execute(query, [str(path)])
    refusals = Inserts(database, "refusals", ("VARCHAR", "BIGINT", "VARCHAR"))
    while part := cells.fetchmany(16):
        for row, head in part:
            reason = refusal(lambda at, size, head=head: head[at : at + size])  # type: ignore[misc]
            if reason is not None:
                refusals.add(uri, row, reason)
    refusals.flush()
    cells.close()
    return None
