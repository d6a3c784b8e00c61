"""Decides by the name of an object, or of a member of an archive, whether the job reads it."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from pipeline.chunks.passed_over import ending_of
from pipeline.errors import ConfigError
from pipeline.inputs.formats import format_of
from pipeline.inputs.rules import FIRST_RULES, RULES
from pipeline.inputs.tar_sidecars import is_sidecar

FIRST_IMAGE_ENDINGS = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
        *(".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".ico"),
        *(".tif", ".tiff", ".avif", ".avifs"),
        *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    )
)
"""Endings of images under `FIRST_RULES`."""

_RAW_ENDINGS = (
    *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".raf", ".orf", ".ori", ".rw2", ".rwl"),
    *(".pef", ".ptx", ".srw", ".x3f", ".3fr", ".fff", ".iiq", ".erf", ".kdc", ".dcr", ".dcs", ".mef", ".mos", ".mrw"),
    *(".cap", ".eip", ".bay", ".gpr"),
)
UNDECODED_ENDINGS = {
    **dict.fromkeys((".heic", ".heics", ".heif", ".heifs", ".hif"), "HEIC"),
    ".jxl": "JPEG XL",
    **dict.fromkeys(_RAW_ENDINGS, "camera raw"),
    **dict.fromkeys((".psd", ".psb"), "PSD"),
    **dict.fromkeys((".svg", ".svgz"), "SVG"),
}
"""Names of the formats that are recognised and not decoded, by ending."""

IMAGE_ENDINGS = FIRST_IMAGE_ENDINGS | {".pjpeg", ".pjp", ".jif", ".jfi"} | UNDECODED_ENDINGS.keys()
"""Endings of images under `RULES`."""

# Names of the files that exports of labels write beside images and shards.
METADATA_FILE = "metadata.jsonl"
LABELS_TAR_ENDING = ".labels.tar"


def image_endings(rules: int) -> frozenset[str]:
    """Returns the endings of images under a version of the rules of reading, in lower case and with their dots."""
    return FIRST_IMAGE_ENDINGS if rules == FIRST_RULES else IMAGE_ENDINGS


def has_image_ending(name: str, rules: int = RULES) -> bool:
    """Returns True if a name has an image's ending, in upper or lower case."""
    last = name[name.rfind("/") + 1 :]
    dot = last.rfind(".")
    return dot > 0 and last[dot:].lower() in image_endings(rules)


def is_hidden(name: str, rules: int = RULES) -> bool:
    """Returns True for hidden files and folders, markers such as `_SUCCESS`, folder placeholders, and exported labels.

    A name that begins with `_` is no marker if it has an image's ending: cameras write `_DSC0001.jpg`.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.endswith("/") or not parts or "__MACOSX" in parts:
        return True
    if parts[-1] == METADATA_FILE or parts[-1].lower().endswith(LABELS_TAR_ENDING):
        return True
    hidden = any(part[0] == "." and part != ".." for part in parts)
    return hidden or (parts[-1].startswith("_") and not has_image_ending(name, rules))


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
        include_also: globs of images that are selected beside those that `include` selects, in upper or lower case as
            the endings of images are.
        exclude: globs of images and shards that are not selected, even if the other globs select them.
        rules: version of the rules of reading.
    """

    include: tuple[str, ...] = ()
    include_also: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    rules: int = RULES

    def __post_init__(self) -> None:
        for pattern in self.include_also:
            if format_of(pattern) is not None:
                raise ConfigError(f"--include-also {pattern}: the glob chooses shards; all shards are read anyway")

    def takes_image(self, name: str) -> bool:
        """Returns True if a loose object or a member of an archive that has this name is an image record."""
        return not self._is_excluded(name) and self._selects_image(name)

    def takes_shard(self, name: str) -> bool:
        """Returns True if a shard that has this name is selected."""
        patterns = [p for p in self.include if format_of(p) is not None]
        if self._is_excluded(name):
            return False
        return any(matches(name, p) for p in patterns) if patterns else True

    def ending_left_out(self, name: str) -> str | None:
        """Returns the ending under which a name that is not selected is counted.

        The result is None for names that are only counted in the sum: hidden files, markers, sidecars, and names that
        `exclude` leaves out although no other rule selects them.
        """
        if is_hidden(name, self.rules) or is_sidecar(name):
            return None
        is_asked_for = self._is_excluded(name) and not self._selects_image(name)
        return None if is_asked_for else ending_of(name)

    def _selects_image(self, name: str) -> bool:
        patterns = [p for p in self.include if format_of(p) is None]
        selected = any(matches(name, p) for p in patterns) if patterns else has_image_ending(name, self.rules)
        return selected or any(matches(name.lower(), p.lower()) for p in self.include_also)

    def _is_excluded(self, name: str) -> bool:
        return is_hidden(name, self.rules) or any(matches(name, pattern) for pattern in self.exclude)
