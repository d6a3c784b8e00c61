"""What every shard reader yields: one record an image, in an order that depends on the shard's bytes alone."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.chunks.failures import Failure

MAX_ENCODED_BYTES = 256 * 2**20
"""A record with more encoded bytes than this is not read: it fails as `image.too_large`."""


class ColumnError(ValueError):
    """A column that `--image-column` or `--keep-columns` asks for is not in a file, or cannot hold images."""


@dataclass(frozen=True, kw_only=True)
class ReaderOptions:
    """What a reader is asked for, whatever its format; a format ignores what it has no use for.

    Attributes:
        takes_image: returns True if the member of an archive that has this name is an image record.
        image_column: column of a table that holds the encoded images; None finds it.
        keep_columns: source columns that records carry along as text.
    """

    takes_image: Callable[[str], bool]
    image_column: str | None = None
    keep_columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a shard, still encoded, or the reason why it could not be read.

    Attributes:
        key: tar: member name; Parquet: row number; loose file: path below the input. None: the record stands for the
            rest of a shard that broke off.
        data: the encoded image; None where `failure` says why there is none.
        true_label: the label that came with the image, as text.
        kept: the source columns asked for by `--keep-columns`, in that order, as text (JSON where nested).
        failure: set when the record could not be read.
        ignored: members passed over since the record before (hidden files, markers, unmatched names).
    """

    key: str | None
    data: bytes | None
    true_label: str | None = None
    kept: tuple[str | None, ...] = ()
    failure: Failure | None = None
    ignored: int = 0


@dataclass(frozen=True, slots=True)
class ShardEnd:
    """The last thing that a reader yields, exactly once.

    Attributes:
        ignored: members passed over since the last record.
    """

    ignored: int = 0


def as_text(value: object) -> str | None:
    """A label or kept value as text: strings as they are, other JSON values as JSON, None as None, the rest by `str`.

    Bytes are read as UTF-8; what cannot be written as UTF-8 (broken bytes, lone surrogates) becomes backslash escapes.
    """
    if value is None:
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, bool | int | float | list | tuple | dict):
        value = json.dumps(value, ensure_ascii=False, default=as_text)
    return str(value).encode("utf-8", "backslashreplace").decode()
