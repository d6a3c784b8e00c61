"""Decides by the name of an object, or of a member of an archive, whether the job reads it."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from pipeline.inputs.formats import format_of
from pipeline.inputs.rules import RULES

IMAGE_ENDINGS = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
        *(".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".ico"),
        *(".tif", ".tiff", ".avif", ".avifs"),
        *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    )
)
# Names of the files that exports of labels write beside images and shards.
METADATA_FILE = "metadata.jsonl"
LABELS_TAR_ENDING = ".labels.tar"


def has_image_ending(name: str) -> bool:
    """Returns True if a name has an image's ending, in upper or lower case."""
    last = name[name.rfind("/") + 1 :]
    dot = last.rfind(".")
    return dot > 0 and last[dot:].lower() in IMAGE_ENDINGS


def is_hidden(name: str) -> bool:
    """Returns True for hidden files and folders, markers such as `_SUCCESS`, folder placeholders, and exported labels.

    A name that begins with `_` is no marker if it has an image's ending: cameras write `_DSC0001.jpg`.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.endswith("/") or not parts or "__MACOSX" in parts:
        return True
    if parts[-1] == METADATA_FILE or parts[-1].lower().endswith(LABELS_TAR_ENDING):
        return True
    hidden = any(part[0] == "." and part != ".." for part in parts)
    return hidden or (parts[-1].startswith("_") and not has_image_ending(name))


def matches(name: str, pattern: str) -> bool:
    """Returns True if a glob matches a name; a glob without `/` is compared with the last part of the name only."""
    return fnmatchcase(name if "/" in pattern else PurePosixPath(name).name, pattern)


@dataclass(frozen=True, kw_only=True)
class NameFilter:
    """Globs that select images and shards by their names.

    A glob with a shard's ending selects shards; every other glob selects images.

    Attributes:
        include: globs of selected names. Without a glob for images, all names with an image's ending are selected;
            without a glob for shards, all shards are selected.
        exclude: globs of images and shards that are not selected, even if `include` selects them.
        rules: version of the rules of reading.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    rules: int = RULES

    def _excluded(self, name: str) -> bool:
        return is_hidden(name) or any(matches(name, pattern) for pattern in self.exclude)

    def takes_image(self, name: str) -> bool:
        """Returns True if a loose object or a member of an archive that has this name is an image record."""
        patterns = [p for p in self.include if format_of(p) is None]
        if self._excluded(name):
            return False
        return any(matches(name, p) for p in patterns) if patterns else has_image_ending(name)

    def takes_shard(self, name: str) -> bool:
        """Returns True if a shard that has this name is selected."""
        patterns = [p for p in self.include if format_of(p) is not None]
        if self._excluded(name):
            return False
        return any(matches(name, p) for p in patterns) if patterns else True
