"""Corrections of people, which win over the network's labels. The job reads and never writes files of corrections."""

import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.inputs.formats import PARQUET
from pipeline.store.errors import StoreError
from pipeline.store.object_info import ObjectInfo
from pipeline.store.store_path import StorePath
from pipeline.store.uris import name_of, shown

# Names in an output under which corrections are looked for, unless the user gives URIs.
PLACES = ("overrides.csv", "overrides.parquet", "overrides")

# `order` counts rows over all files; `at_s` is the time of a correction in Unix seconds, null without a time.
OVERRIDE_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string()),
        pa.field("label", pa.string()),
        pa.field("source_etag", pa.string()),
        pa.field("at_s", pa.float64()),
        pa.field("order", pa.int64()),
    ]
)
_NEEDED = ("image_id", "label")
_TEXTS = (*_NEEDED, "source_etag", "at")


def find_overrides(output: StorePath, uris: Sequence[str] = ()) -> list[ObjectInfo]:
    """Returns each file of corrections once: the files at the given URIs, or without URIs the files in the output.

    Raises:
        InputError: A URI cannot be listed, or there is no file of corrections at a given URI.
    """
    found: dict[str, ObjectInfo] = {}
    for place in [output.at(uri) for uri in uris] or [output.join(name) for name in PLACES]:
        try:
            there = [info for info in place.list() if info.uri == place.uri or _is_override(info.uri)]
        except StoreError as error:
            raise InputError(f"overrides {place.shown} cannot be listed: {error}") from error
        if uris and not there:
            raise InputError(f"--overrides {place.shown}: no .csv or .parquet file is there")
        found |= {info.uri: info for info in there}
    return list(found.values())


def read_overrides(output: StorePath, files: Iterable[ObjectInfo]) -> Iterator[pa.RecordBatch]:
    """Yields all corrections in the order of files and rows; an empty label becomes null, which drops the image.

    Raises:
        InputError: A file has no columns `image_id` and `label`, or holds an impossible value.
    """
    order = 0
    for info in files:
        table = _read_texts(output.at(info.uri), info.etag)
        images = table.column("image_id").to_pylist()
        if not all(images):
            raise InputError(f"overrides {shown(info.uri)}: row {_first_empty(images)} has no image_id")
        columns = [
            images,
            [label or None for label in table.column("label").to_pylist()],
            [etag or None for etag in table.column("source_etag").to_pylist()],
            [_seconds(text, info.uri) for text in table.column("at").to_pylist()],
            range(order, order + len(images)),
        ]
        order += len(images)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, OVERRIDE_SCHEMA, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=OVERRIDE_SCHEMA)


def _is_override(uri: str) -> bool:
    return not name_of(uri).startswith((".", "_")) and (PARQUET.takes(uri) or uri.lower().endswith(".csv"))


def _read_texts(file: StorePath, etag: str) -> pa.Table:
    """Returns the columns of a file of corrections as text; a missing optional column is null."""
    try:
        body = io.BytesIO(file.read(etag))
        if PARQUET.takes(file.uri):
            table = pq.read_table(body)
        else:
            # Labels such as NA or 007 stay text.
            convert = pacsv.ConvertOptions(column_types=dict.fromkeys(_TEXTS, pa.string()), strings_can_be_null=False)
            table = pacsv.read_csv(
                body, parse_options=pacsv.ParseOptions(newlines_in_values=True), convert_options=convert
            )
        for name in _NEEDED:
            if name not in table.column_names:
                raise InputError(
                    f"overrides {file.shown} has no column {name!r} but {', '.join(table.column_names)}; "
                    "needed are image_id and label, separated by commas where it is a CSV"
                )
        texts = {
            name: table.column(name).cast(pa.string()) if name in table.column_names else pa.nulls(len(table))
            for name in _TEXTS
        }
    except (StoreError, pa.ArrowException, OSError) as error:
        raise InputError(f"overrides {file.shown} cannot be read: {error}") from error
    return pa.table(texts)


def _seconds(text: str | None, uri: str) -> float | None:
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"overrides {shown(uri)}: at={text!r} is no time such as 2026-11-27T08:30:00Z") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _first_empty(texts: Sequence[str | None]) -> int:
    return next(index for index, text in enumerate(texts, start=1) if not text)
