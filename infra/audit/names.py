"""The names of records and of shards, as documented: image endings, hidden names, and the globs of the job."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from infra.audit.formats import FORMATS, LOOSE_FILES, format_of

# All common endings of JPEG, PNG, WebP, GIF, BMP, ICO, TIFF, AVIF, JPEG 2000 and PNM.
IMAGE_ENDINGS = frozenset(
    (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "webp", "gif", "bmp", "dib", "ico", "tif", "tiff"),
        *("avif", "avifs", "jp2", "j2k", "j2c", "jpc", "jpf", "jpx", "ppm", "pgm", "pbm", "pnm", "pfm"),
    )
)


def has_image_ending(name: str) -> bool:
    """Returns True if the last part of a name has an image's ending, in upper or lower case, behind a stem."""
    stem, dot, ending = name.rpartition("/")[2].rpartition(".")
    return bool(stem and dot) and ending.lower() in IMAGE_ENDINGS


def is_hidden(name: str) -> bool:
    """Returns True for a name that no glob can choose.

    Such names are dot files and folders, `__MACOSX`, markers like `_SUCCESS`, and labels exported beside images.
    """
    parts = [part for part in name.split("/") if part and part != "."]
    if not parts or name.endswith("/") or "__MACOSX" in parts:
        return True
    if any(part.startswith(".") and part != ".." for part in parts):
        return True
    if parts[-1] == "metadata.jsonl" or parts[-1].lower().endswith(".labels.tar"):
        return True
    return parts[-1].startswith("_") and not has_image_ending(name)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The globs by which the job of an output chose images and shards.

    A glob with the ending of a shard chooses shards; any other glob chooses images.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @staticmethod
    def of(identity: dict[str, Any]) -> "Selection":
        """Returns the globs in a `_job.json`."""
        records = identity["records"]
        return Selection(include=tuple(records["include"]), exclude=tuple(records["exclude"]))

    def takes_image(self, name: str) -> bool:
        """Returns True if the loose object or tar member of this name is a record."""
        globs = [glob for glob in self.include if format_of(glob) is None]
        return self._is_allowed(name) and (_any(globs, name) if globs else has_image_ending(name))

    def takes_shard(self, name: str) -> bool:
        """Returns True if the object of this name is read as a shard."""
        globs = [glob for glob in self.include if format_of(glob) is not None]
        return self._is_allowed(name) and (_any(globs, name) if globs else True)

    def format_name(self, name: str, *, input_format: str, is_named: bool) -> str | None:
        """Returns the name of an object's format, `LOOSE_FILES` for an image, and None for an object that is left out.

        Args:
            name: Path of the object below the input.
            input_format: `--input-format` of the run.
            is_named: True if the object is itself an input; then `input_format` decides, whatever ending the object
                has.
        """
        named_format = input_format if is_named else "auto"
        by_ending = format_of(name)
        for shard_format in FORMATS.values():
            is_of_format = shard_format is by_ending or shard_format.name == named_format
            if input_format in ("auto", shard_format.name) and is_of_format:
                return shard_format.name if self.takes_shard(name) else None
        return LOOSE_FILES if input_format in ("auto", LOOSE_FILES) and self.takes_image(name) else None

    def _is_allowed(self, name: str) -> bool:
        return not is_hidden(name) and not _any(self.exclude, name)


def _any(globs: tuple[str, ...] | list[str], name: str) -> bool:
    """Returns True if a glob matches the name; a glob without a slash is compared with the last part of the name."""
    return any(fnmatchcase(name if "/" in glob else name.rstrip("/").rpartition("/")[2], glob) for glob in globs)
