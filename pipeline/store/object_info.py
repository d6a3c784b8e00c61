"""One object of a store, as a listing shows it, and the times that listings name."""

from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a store.

    Attributes:
        uri: Canonical URI.
        size: Size in bytes.
        etag: Opaque name of the object's version, with the quotes that the store puts around the name.
        modified_s: Last-modified time in Unix seconds; 0 if the store does not give a time. Comparisons of two infos
            ignore the time.
    """

    uri: str
    size: int
    etag: str
    modified_s: float = field(default=0.0, compare=False)


def unix_s(text: str) -> float:
    """Returns the time in Unix seconds of an ISO 8601 date, or date and time; a missing time zone means UTC.

    Raises:
        ValueError: The text is neither an ISO 8601 date nor an ISO 8601 date and time.
    """
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
