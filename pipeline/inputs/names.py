"""Which names are images, which are shards, and which are passed over."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from pipeline.inputs.formats import format_of

IMAGE_ENDINGS = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
        *(".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".ico"),
        *(".tif", ".tiff", ".avif", ".avifs"),
        *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    )
)
# What exports of labels put beside images and shards.
METADATA_FILE = "metadata.jsonl"
LABELS_TAR_ENDING = ".labels.tar"


def has_image_ending(name: str) -> bool:
    """True if the name ends as an image's does, in any case."""
    last = name[name.rfind("/") + 1 :]
    dot = last.rfind(".")
    return dot > 0 and last[dot:].lower() in IMAGE_ENDINGS


def is_hidden(name: str) -> bool:
    """True for hidden files and folders, markers such as `_SUCCESS`, folder placeholders, and exported labels.

    A name that begins with `_` is a marker only where its ending is no image's: cameras write `_DSC0001.jpg`.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.endswith("/") or not parts or "__MACOSX" in parts:
        return True
    if parts[-1] == METADATA_FILE or parts[-1].lower().endswith(LABELS_TAR_ENDING):
        return True
    hidden = any(part[0] == "." and part != ".." for part in parts)
    return hidden or (parts[-1].startswith("_") and not has_image_ending(name))


def matches(name: str, pattern: str) -> bool:
    """True if a glob matches: its last part where the pattern has no `/`, else the whole name."""
    return fnmatchcase(name if "/" in pattern else PurePosixPath(name).name, pattern)


@dataclass(frozen=True, kw_only=True)
class NameFilter:
    """Which names take part. A pattern with a shard's ending chooses shards; every other pattern chooses images.

    Attributes:
        include: globs; where none of a kind is given, images are the names with an image ending and shards are all.
        exclude: globs for both kinds.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def _excluded(self, name: str) -> bool:
        return is_hidden(name) or any(matches(name, pattern) for pattern in self.exclude)

    def takes_image(self, name: str) -> bool:
        """True if this loose object or tar member is an image record."""
        patterns = [p for p in self.include if format_of(p) is None]
        if self._excluded(name):
            return False
        return any(matches(name, p) for p in patterns) if patterns else has_image_ending(name)

    def takes_shard(self, name: str) -> bool:
        """True if this object is read as a shard."""
        patterns = [p for p in self.include if format_of(p) is not None]
        if self._excluded(name):
            return False
        return any(matches(name, p) for p in patterns) if patterns else True
