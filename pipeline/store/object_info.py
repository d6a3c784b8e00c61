"""One object of a store, as a listing names it."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object. The ETag is opaque and complete, with the quotes a store puts around it.

    `modified_s` is when it was last modified, in Unix seconds; 0 where nobody says. The ETag alone makes a version.
    """

    uri: str
    size: int
    etag: str
    modified_s: float = field(default=0.0, compare=False)
