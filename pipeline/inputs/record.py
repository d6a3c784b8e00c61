"""Records: a reader yields one for each image, in an order that depends on the bytes of the shard alone."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from pipeline.chunks.failures import Failure
from pipeline.chunks.passed_over import ending_of
from pipeline.inputs.rules import RULES

MAX_ENCODED_BYTES = 256 * 2**20
"""Largest number of encoded bytes of a record. A larger record is not read and fails as `image.too_large`."""


BAD_URI = "no request can name the object: its key has a '.' or '..' part, or a control character; rename it"
"""Message of a failed record whose object cannot be read because of its key."""

LABEL_NAMES = ("label", "cls", "class", "labels", "category")
"""Names of columns and fields that hold the label of an image, the likeliest name first; upper case comes after."""


class ColumnError(ValueError):
    """A column that `--image-column` or `--keep-columns` asks for is not in a file, or cannot hold images."""


@dataclass(frozen=True, kw_only=True)
class ReaderOptions:
    """Options of every reader; a reader ignores the options that its format has no use for.

    Attributes:
        takes_image: function that returns True if the member of an archive that has this name is an image record.
        ending_left_out: function that returns the ending under which the name of a member that is not taken is counted,
            or None if the name is only counted in the sum.
        image_column: column of a table that holds the encoded images; None finds the column.
        keep_columns: columns of the source whose values records carry as text.
        rules: version of the rules of reading.
        names_beside: function of a column that returns the names of the column's classes by the files beside the shard;
            no names if none are known.
    """

    takes_image: Callable[[str], bool]
    ending_left_out: Callable[[str], str | None] = ending_of
    image_column: str | None = None
    keep_columns: tuple[str, ...] = ()
    rules: int = RULES
    names_beside: Callable[[str], tuple[str, ...]] = lambda column: ()


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a shard, still encoded, or the reason why it could not be read.

    Attributes:
        key: name of a member in a tar, row number in a Parquet file, or path of a loose image below its input. None if
            the record stands for the rest of a shard that breaks off.
        data: the encoded image; None if there is no image.
        true_label: the label that came with the image, as text.
        kept: values of the columns of `--keep-columns`, in that order, as text (JSON if nested).
        failure: reason why the record could not be read; None if it was read.
        ignored: number of members passed over since the previous record (hidden files, markers, unmatched names).
        passed_over: number of these members by ending, see `NameFilter.ending_left_out`.
    """

    key: str | None
    data: bytes | None
    true_label: str | None = None
    kept: tuple[str | None, ...] = ()
    failure: Failure | None = None
    ignored: int = 0
    passed_over: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ShardEnd:
    """End of a shard: every reader yields it once, as its last item.

    Attributes:
        ignored: number of members passed over since the last record.
        passed_over: number of these members by ending, see `NameFilter.ending_left_out`.
    """

    ignored: int = 0
    passed_over: tuple[tuple[str, int], ...] = ()


def as_text(value: object) -> str | None:
    """Returns a label or kept value as text; None stays None.

    Strings stay as they are, other JSON values become JSON, and the rest is converted by `str`. Bytes are decoded as
    UTF-8. Broken bytes and lone surrogates become backslash escapes.
    """
    if value is None:
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, bool | int | float | list | tuple | dict):
        value = json.dumps(value, ensure_ascii=False, default=as_text)
    return str(value).encode("utf-8", "backslashreplace").decode()


def label_text(value: object) -> str | None:
    """Returns a label as text; None for a value that is no label.

    A whole number becomes text without a fraction: 3.0 is `3`, since tables store numbers beside missing values so.
    NaN is a missing value. Lists and objects are no labels. `as_text` converts the other values.
    """
    if isinstance(value, list | tuple | dict | set) or value != value:
        return None
    # A float from 2**53 on stands for many numbers, so its digits would say more than is known.
    if (isinstance(value, Decimal) or (isinstance(value, float) and abs(value) < 2**53)) and value == int(value):
        value = int(value)
    return as_text(value)


def class_folder(name: str) -> str | None:
    """Returns the folder of a member or loose image, its label in the layout of ImageFolder; None for no folder.

    The part `.` of a path is no folder, and neither is `..`.
    """
    folder = next((part for part in reversed(name.split("/")[:-1]) if part not in ("", ".")), None)
    return None if folder == ".." else folder
