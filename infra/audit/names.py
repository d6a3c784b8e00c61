"""The names of records and of shards, as documented: image endings, hidden names, and the globs of the job."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from infra.audit.formats import FORMATS, LOOSE_FILES, format_of
from infra.audit.ids import FIRST_RULES

# All common endings of JPEG, PNG, WebP, GIF, BMP, ICO, TIFF, AVIF, JPEG 2000 and PNM.
FIRST_IMAGE_ENDINGS = frozenset(
    (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "webp", "gif", "bmp", "dib", "ico", "tif", "tiff"),
        *("avif", "avifs", "jp2", "j2k", "j2c", "jpc", "jpf", "jpx", "ppm", "pgm", "pbm", "pnm", "pfm"),
    )
)

# HEIF, JPEG XL, Photoshop, SVG, and the raw formats of cameras.
UNDECODED_ENDINGS = frozenset(
    (
        *("heic", "heics", "heif", "heifs", "hif", "jxl", "psd", "psb", "svg", "svgz"),
        *("dng", "cr2", "cr3", "crw", "nef", "nrw", "arw", "srf", "sr2", "raf", "orf", "ori", "rw2", "rwl", "pef"),
        *("ptx", "srw", "x3f", "3fr", "fff", "iiq", "erf", "kdc", "dcr", "dcs", "mef", "mos", "mrw", "cap", "eip"),
        *("bay", "gpr"),
    )
)
IMAGE_ENDINGS = FIRST_IMAGE_ENDINGS | UNDECODED_ENDINGS | {"pjpeg", "pjp", "jif", "jfi"}
"""Endings of images under the present rules of reading."""


def ending_of(name: str) -> str:
    """Returns what stands behind the last dot of a name's last part, in lower case; empty without a stem or a dot."""
    stem, dot, ending = name.rpartition("/")[2].rpartition(".")
    return ending.lower() if stem and dot else ""


def has_image_ending(name: str, rules: int) -> bool:
    """Returns True if the last part of a name has an image's ending, in upper or lower case, behind a stem."""
    return ending_of(name) in (FIRST_IMAGE_ENDINGS if rules == FIRST_RULES else IMAGE_ENDINGS)


def is_hidden(name: str, rules: int) -> bool:
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
    return parts[-1].startswith("_") and not has_image_ending(name, rules)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The settings that decide which records the job of an output read.

    A glob with the ending of a shard chooses shards; any other glob chooses images.

    Attributes:
        include, exclude: Globs of names that are read, and that are left out.
        include_also: Globs of names that are read beside those that `include` or the endings choose, in any case.
        image_column: Column of Parquet files with the images; None chooses by name and type.
        rules: Version of the rules of reading.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    include_also: tuple[str, ...] = ()
    image_column: str | None = None
    rules: int = FIRST_RULES

    @staticmethod
    def of(identity: dict[str, Any]) -> "Selection":
        """Returns what a `_job.json` says."""
        records = identity["records"]
        return Selection(
            include=tuple(records["include"]),
            exclude=tuple(records["exclude"]),
            include_also=tuple(records.get("include_also", ())),
            image_column=records.get("image_column"),
            rules=records.get("rules", FIRST_RULES),
        )

    def takes_image(self, name: str) -> bool:
        """Returns True if the loose object or tar member of this name is a record."""
        globs = [glob for glob in self.include if format_of(glob) is None]
        chosen = _any(globs, name) if globs else has_image_ending(name, self.rules)
        also = _any([glob.lower() for glob in self.include_also], name.lower())
        return self._is_allowed(name) and (chosen or also)

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
        return not is_hidden(name, self.rules) and not _any(self.exclude, name)


def _any(globs: tuple[str, ...] | list[str], name: str) -> bool:
    """Returns True if a glob matches the name; a glob without a slash is compared with the last part of the name."""
    return any(fnmatchcase(name if "/" in glob else name.rstrip("/").rpartition("/")[2], glob) for glob in globs)
