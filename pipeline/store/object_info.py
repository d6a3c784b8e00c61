"""One object of a store, as a listing shows it."""

from dataclasses import dataclass, field


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
