"""Chooses the columns of a Parquet file: the images, the label, and the columns to keep.

Of two columns with one name the first is taken.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.inputs.dataset_info import feature_names
from pipeline.inputs.record import LABEL_NAMES, ColumnError

IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "content", "data")
"""Names, in upper or lower case, by which a column of images is recognised; the likeliest name comes first."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column to read.

    Attributes:
        leaves: places of the column's parts among all parts of all columns, as Parquet counts them.
        kind: type of the column, without an extension type or a dictionary around it.
        names: names of the classes if the column holds numbers of classes, as Hugging Face's `ClassLabel` does; else
            none.
    """

    leaves: tuple[int, ...]
    kind: pa.DataType
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a file that a job asks for; None for a label or a column to keep that the file lacks."""

    image: Column
    label: Column | None
    kept: tuple[Column | None, ...]


def choose_columns(
    schema: pa.Schema,
    image_column: str | None,
    keep_columns: Sequence[str],
    names_beside: Callable[[str], tuple[str, ...]] = lambda column: (),
) -> Columns:
    """Returns the columns to read.

    The label is the first column by `LABEL_NAMES`, and then by the order of the file, that is not nested. A name with
    upper case comes after all names in lower case. If it holds whole numbers whose classes the file does not name,
    `names_beside` is asked for their names.

    Raises:
        ColumnError: no column is known to hold images, or `image_column` is missing or cannot hold images.
    """
    fields = list(enumerate(schema))
    names = [_name(schema, at) for at in range(len(schema))]
    # The search takes the last of two columns whose names differ in case alone, hence the reversed order.
    image = _find_image([(at, names[at], field.type) for at, field in reversed(fields)], image_column)
    leaves = _leaves(schema)
    plain = plain_type(schema.field(image).type)
    parts = leaves[image]
    if is_file(plain):
        counts = [_num_leaves(field.type) for field in plain]
        wanted = [at for at in (plain.get_field_index("bytes"), plain.get_field_index("path")) if at >= 0]
        parts = tuple(leaf for at in sorted(wanted) for leaf in parts[sum(counts[:at]) : sum(counts[: at + 1])])
    label = min(
        (
            (not name.islower(), LABEL_NAMES.index(name.lower()), at)
            for at, name in enumerate(names)
            if name.lower() in LABEL_NAMES and at != image and not _is_nested(schema.field(at).type)
        ),
        default=None,
    )
    return Columns(
        Column(parts, plain),
        None if label is None else _label_column(schema, leaves, label[2], names_beside),
        tuple(_column(schema, leaves, names.index(name)) if name in names else None for name in keep_columns),
    )


def find_image_column(schema: pa.Schema, image_column: str | None) -> str:
    """Returns the name of the column that holds the encoded images.

    The function takes `image_column` if that is given, else a Hugging Face image (a struct with a field `bytes`), else
    a column of bytes with a known name. A string column is taken only if `image_column` names the column: some writers
    store bytes in string columns.

    Raises:
        ColumnError: no column is known to hold images, or `image_column` is missing or cannot hold images.
    """
    types = {field.name: field.type for field in schema}
    names = list(types)
    return names[_find_image([(at, name, types[name]) for at, name in enumerate(names)], image_column)]


def lacking_columns(schema: pa.Schema, image_column: str | None, keep_columns: Sequence[str]) -> dict[str, str]:
    """Returns the columns to keep that a file lacks, each with a sentence that names the columns there are.

    Raises:
        ColumnError: no column is known to hold images, or `image_column` is missing or cannot hold images.
    """
    chosen = choose_columns(schema, image_column, keep_columns)
    names = ", ".join(_name(schema, at) for at in range(len(schema)))
    return {
        name: f"there is no column {name!r} for --keep-columns: the columns are {names}"
        for name, column in zip(keep_columns, chosen.kept, strict=True)
        if column is None
    }


def class_names(schema: pa.Schema, column: str) -> tuple[str, ...]:
    """Returns the names of the classes that Hugging Face's metadata give for a column; no names without metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()
    return feature_names(features, column)


def _find_image(fields: Iterable[tuple[int, str, pa.DataType]], image_column: str | None) -> int:
    """Returns the place of the column with images; the later of two columns with one name is taken."""
    columns = {name: (at, plain_type(kind)) for at, name, kind in fields}
    shown = sorted((at, f"{name} ({kind})") for name, (at, kind) in columns.items())
    there_are = "the columns are " + (", ".join(text for _, text in shown) or "none")
    if image_column is not None:
        if image_column not in columns:
            raise ColumnError(f"there is no column {image_column!r} for --image-column: {there_are}")
        at, kind = columns[image_column]
        if not (is_file(kind) or is_bytes(kind) or is_text(kind)):
            raise ColumnError(f"the column {image_column!r} of --image-column does not hold bytes: {there_are}")
        return at
    files = {name.lower(): at for name, (at, kind) in columns.items() if is_file(kind)}
    plain = {name.lower(): at for name, (at, kind) in columns.items() if is_bytes(kind)}
    found = [files[name] for name in IMAGE_COLUMNS if name in files]
    # A single struct of bytes holds the images whatever its name is. A column of bytes may hold anything, so its name
    # must be known.
    found += files.values() if len(files) == 1 else ()
    found += [plain[name] for name in IMAGE_COLUMNS if name in plain]
    if not found:
        raise ColumnError(f"no column is known to hold images; name one with --image-column: {there_are}")
    return found[0]


def _name(schema: pa.Schema, at: int) -> str:
    """Returns the name of a column; its place if the name is no UTF-8, since Arrow then hides it."""
    try:
        return str(schema.field(at).name)
    except UnicodeDecodeError:
        return f"column {at}"


def _column(schema: pa.Schema, leaves: Sequence[tuple[int, ...]], at: int, names: tuple[str, ...] = ()) -> Column:
    return Column(leaves[at], plain_type(schema.field(at).type), names)


def _label_column(
    schema: pa.Schema, leaves: Sequence[tuple[int, ...]], at: int, names_beside: Callable[[str], tuple[str, ...]]
) -> Column:
    names = class_names(schema, _name(schema, at))
    if not names and pa.types.is_integer(plain_type(schema.field(at).type)):
        names = names_beside(_name(schema, at))
    return _column(schema, leaves, at, names)


def _leaves(schema: pa.Schema) -> list[tuple[int, ...]]:
    """Returns the places of the parts of each column."""
    leaves, end = [], 0
    for field in schema:
        begin, end = end, end + _num_leaves(field.type)
        leaves.append(tuple(range(begin, end)))
    return leaves


def _num_leaves(kind: pa.DataType) -> int:
    kind = plain_type(kind)
    return sum(_num_leaves(kind.field(at).type) for at in range(kind.num_fields)) if kind.num_fields else 1


def _is_nested(kind: pa.DataType) -> bool:
    return bool(plain_type(kind).num_fields)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Returns a type without an extension type or a dictionary around it."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_bytes(kind: pa.DataType) -> bool:
    """Returns True for the types of bytes."""
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def is_text(kind: pa.DataType) -> bool:
    """Returns True for the types of strings."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_file(kind: pa.DataType) -> bool:
    """Returns True for a Hugging Face image: a struct with a field `bytes`."""
    at = kind.get_field_index("bytes") if pa.types.is_struct(kind) else -1
    return at >= 0 and is_bytes(plain_type(kind.field(at).type))
