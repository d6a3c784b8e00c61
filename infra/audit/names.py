"""Which names are records and shards, as the documentation has it: image endings, hidden names, the job's globs."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

Kind = Literal["tar", "parquet", "files"]

# JPEG, PNG, WebP, GIF, BMP, ICO, TIFF, AVIF, JPEG 2000 and PNM, under all the endings that they go by.
IMAGE_ENDINGS = frozenset(
    (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "webp", "gif", "bmp", "dib", "ico", "tif", "tiff"),
        *("avif", "avifs", "jp2", "j2k", "j2c", "jpc", "jpf", "jpx", "ppm", "pgm", "pbm", "pnm", "pfm"),
    )
)
SHARD_ENDINGS: dict[str, tuple[str, ...]] = {"tar": (".tar", ".tar.gz", ".tgz"), "parquet": (".parquet",)}


def has_image_ending(name: str) -> bool:
    """True if the last part of a name is more than an image's ending, in any case."""
    stem, dot, ending = name.rpartition("/")[2].rpartition(".")
    return bool(stem and dot) and ending.lower() in IMAGE_ENDINGS


def shard_kind(name: str) -> Literal["tar", "parquet"] | None:
    """What a shard's name says it is; None for other names."""
    if name.lower().endswith(SHARD_ENDINGS["tar"]):
        return "tar"
    return "parquet" if name.lower().endswith(SHARD_ENDINGS["parquet"]) else None


def is_hidden(name: str) -> bool:
    """True for what takes no part whatever the globs.

    Dot files and folders, `__MACOSX`, markers like `_SUCCESS`, and labels that were exported beside images.
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
    """The globs that an output was made with; one with a shard's ending is about shards, every other about images."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @staticmethod
    def of(identity: dict[str, Any]) -> "Selection":
        """The globs in `_job.json`."""
        records = identity["records"]
        return Selection(include=tuple(records["include"]), exclude=tuple(records["exclude"]))

    def takes_image(self, name: str) -> bool:
        """True if this loose object or tar member is a record."""
        globs = [glob for glob in self.include if shard_kind(glob) is None]
        return self._is_allowed(name) and (_any(globs, name) if globs else has_image_ending(name))

    def takes_shard(self, name: str) -> bool:
        """True if this tar or Parquet object is read."""
        globs = [glob for glob in self.include if shard_kind(glob) is not None]
        return self._is_allowed(name) and (_any(globs, name) if globs else True)

    def kind_of(self, name: str, *, input_format: str, is_named: bool) -> Kind | None:
        """How an object takes part; None if it does not.

        Args:
            name: its path below the input.
            input_format: `--input-format` of the run.
            is_named: it is itself an input, so that the format says what it is, whatever its ending.
        """
        said = input_format if is_named else "auto"
        ending = shard_kind(name)
        if input_format in ("auto", "tar") and "tar" in (ending, said):
            return "tar" if self.takes_shard(name) else None
        if input_format in ("auto", "parquet") and "parquet" in (ending, said):
            return "parquet" if self.takes_shard(name) else None
        return "files" if input_format in ("auto", "files") and self.takes_image(name) else None

    def _is_allowed(self, name: str) -> bool:
        return not is_hidden(name) and not _any(self.exclude, name)


def _any(globs: tuple[str, ...] | list[str], name: str) -> bool:
    """True if one of them matches: the last part where a glob has no slash, else the whole name."""
    return any(fnmatchcase(name if "/" in glob else name.rstrip("/").rpartition("/")[2], glob) for glob in globs)
