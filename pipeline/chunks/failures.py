"""Error codes and messages of failed records."""

from dataclasses import dataclass
from enum import StrEnum


class ErrorCode(StrEnum):
    """Reasons for which a record fails: the values of the column `error_code`."""

    SOURCE_MISSING = "source.missing"
    SOURCE_CHANGED = "source.changed"
    SOURCE_UNREADABLE = "source.unreadable"
    SOURCE_BAD_URI = "source.bad_uri"
    SOURCE_TRUNCATED = "source.truncated"
    DECODE_EMPTY = "decode.empty"
    DECODE_UNSUPPORTED = "decode.unsupported"
    DECODE_CORRUPT = "decode.corrupt"
    DECODE_CRASHED = "decode.crashed"
    IMAGE_TOO_SMALL = "image.too_small"
    IMAGE_TOO_LARGE = "image.too_large"
    INFER_OUT_OF_MEMORY = "infer.out_of_memory"
    INFER_CRASHED = "infer.crashed"
    INFER_NOT_FINITE = "infer.not_finite"


# Codes of failures that a later run may not meet again, because a store or a machine caused them. The `crashed` codes
# are left out: an image that ended its process most likely ends it again, at the cost of a careful pass. An answer that
# is not finite follows from the weights and the image, and is the same again.
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
    """The reason why one record failed.

    Attributes:
        message: A text that is equal on every attempt: it holds no addresses, times or request ids.
    """

    code: ErrorCode
    message: str
