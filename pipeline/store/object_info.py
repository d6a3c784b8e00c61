"""One object of a store, as a listing shows it."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a store.

    Attributes:
        uri: Canonical URI.
        size: Size in bytes.
        etag: Version of the object, opaque, with the quotes that the store puts around it.
        modified_s: Last-modified time in Unix seconds; 0 if the store does not give one. Two infos with equal ETags are
            equal, whatever their times.
    """

    uri: str
    size: int
    etag: str
    modified_s: float = field(default=0.0, compare=False)
