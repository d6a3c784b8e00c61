"""Converts the cells of a Parquet column one by one, so that an odd cell costs no other cell its value.

Arrow holds more than Python's values can: strings of bytes that are no UTF-8, dates beyond the year 9999, times in
zones that this machine does not know. Such a cell becomes text here, or bytes for `as_text`.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.chunks.failures import ErrorCode, Failure
from pipeline.inputs.parquet_columns import is_text
from pipeline.inputs.record import MAX_ENCODED_BYTES

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY_S = 86400


def cell_value(cell: pa.Scalar) -> Any:
    """Returns a cell as a value for `as_text`; None if the cell is null or has no known text."""
    if pa.types.is_time(cell.type) and cell.is_valid:
        # Arrow turns 25:00 into 01:00, and a second before midnight into 23:59:59, without an error.
        unit = _PER_SECOND[cell.type.unit]
        if not 0 <= cell.value < _DAY_S * unit:
            return None if cell.value < 0 else _clock(*divmod(cell.value, unit), unit=unit)
    try:
        return cell.as_py()
    except Exception:  # each type of Arrow has its own errors
        return _by_parts(cell)


def image_of(cell: pa.Scalar) -> tuple[bytes | None, Failure | None]:
    """Returns (the encoded image, None), or (None, the failure of a cell without an image that can be used).

    Args:
        cell: bytes, a string that holds bytes, or a struct with a field `bytes`. Paths are not followed.
    """
    cell, has_path = plain_cell(cell), False
    if isinstance(cell, pa.StructScalar) and cell.is_valid:
        path = cell.type.get_field_index("path")
        has_path = path >= 0 and plain_cell(cell[path]).is_valid
        cell = plain_cell(cell[cell.type.get_field_index("bytes")])
    if not cell.is_valid:
        message = "the row has a path but no bytes; paths are not followed" if has_path else "the row has no image"
        return None, Failure(ErrorCode.SOURCE_MISSING, message)
    encoded = cell.as_buffer()
    if encoded.size > MAX_ENCODED_BYTES:
        message = f"the row has {encoded.size} bytes, more than an image may have"
        return None, Failure(ErrorCode.IMAGE_TOO_LARGE, message)
    return encoded.to_pybytes(), None


def plain_cell(cell: pa.Scalar) -> pa.Scalar:
    """Returns a cell without an extension type or a dictionary around it."""
    while isinstance(cell, pa.ExtensionScalar | pa.DictionaryScalar) and cell.is_valid:
        cell = cell.value
    return cell


def _by_parts(cell: pa.Scalar) -> Any:
    """Returns the value of a cell that Arrow does not convert, part by part."""
    kind = cell.type
    if isinstance(cell, pa.ExtensionScalar | pa.DictionaryScalar):
        return cell_value(cell.value)
    if is_text(kind):
        return cell.as_buffer().to_pybytes()
    if pa.types.is_struct(kind):
        fields: dict[str, Any] = {}
        for at in range(kind.num_fields):
            fields.setdefault(kind.field(at).name, cell_value(cell[at]))
        return fields
    if pa.types.is_map(kind):
        return [[cell_value(entry[0]), cell_value(entry[1])] for entry in cell.values]
    if kind.num_fields == 1:
        return [cell_value(value) for value in cell.values]
    if pa.types.is_date(kind):
        return _date(cell.value if kind == pa.date32() else cell.value // (_DAY_S * 1000))
    if pa.types.is_timestamp(kind):
        unit = _PER_SECOND[kind.unit]
        seconds, rest = divmod(cell.value, unit)
        # A zone that is not known, or a year that it does not know: the text is in UTC.
        return f"{_date(seconds // _DAY_S)} {_clock(seconds % _DAY_S, rest, unit=unit)}{'+00:00' if kind.tz else ''}"
    if pa.types.is_duration(kind):
        unit = _PER_SECOND[kind.unit]
        seconds, rest = divmod(cell.value, unit)
        days = seconds // _DAY_S
        return f"{days} day{'' if abs(days) == 1 else 's'}, {_clock(seconds % _DAY_S, rest, unit=unit, hour_digits=1)}"
    return None


def _date(days: int) -> str:
    """Returns a day, counted from 1970 on, as text; years may have any number of digits, and may be negative."""
    return str(np.datetime64(days, "D"))


def _clock(seconds: int, rest: int, *, unit: int, hour_digits: int = 2) -> str:
    """Returns a time of day as Python writes it: a fraction of six digits, or of nine, or none if it is 0."""
    text = f"{seconds // 3600:0{hour_digits}d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    nanoseconds = rest * (10**9 // unit)
    if not nanoseconds:
        return text
    return text + (f".{nanoseconds:09d}" if nanoseconds % 1000 else f".{nanoseconds // 1000:06d}")
