"""Why a record failed: error codes, and the text of an error that is the same on every attempt."""

import re
from dataclasses import dataclass
from enum import StrEnum


class ErrorCode(StrEnum):
    """Why a record failed: the values of the column `error_code`."""

    SOURCE_MISSING = "source.missing"
    SOURCE_CHANGED = "source.changed"
    SOURCE_UNREADABLE = "source.unreadable"
    SOURCE_TRUNCATED = "source.truncated"
    DECODE_EMPTY = "decode.empty"
    DECODE_UNSUPPORTED = "decode.unsupported"
    DECODE_CORRUPT = "decode.corrupt"
    DECODE_CRASHED = "decode.crashed"
    IMAGE_TOO_SMALL = "image.too_small"
    IMAGE_TOO_LARGE = "image.too_large"
    INFER_OUT_OF_MEMORY = "infer.out_of_memory"
    INFER_CRASHED = "infer.crashed"


# What another night may mend: the store, or a machine, did not do its part. An image that ended its process most likely
# does so again, at the cost of a careful pass.
TRANSIENT_CODES = frozenset(
    (
        ErrorCode.SOURCE_MISSING,
        ErrorCode.SOURCE_CHANGED,
        ErrorCode.SOURCE_UNREADABLE,
        ErrorCode.INFER_OUT_OF_MEMORY,
    )
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one record failed. The message must be the same on every attempt (no addresses, times or request ids)."""

    code: ErrorCode
    message: str


MAX_ERROR_CHARS = 150


def error_text(error: BaseException) -> str:
    """An error of a library as one line of at most 150 characters that is the same on every attempt (no addresses)."""
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", f"{type(error).__name__}: {error}")
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:MAX_ERROR_CHARS]
