"""The image members of a tar, found by the standard library's `tarfile`, and whether the tar is whole."""

import gzip
import io
import posixpath
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self, cast

from infra.audit.ids import FIRST_RULES
from infra.audit.labels import MAX_SIDECAR_BYTES, Sample, Samples, is_sidecar
from infra.audit.refused import HEAD_BYTES, refusal

_GZIP_MAGIC = b"\x1f\x8b"
_BUFFER_BYTES = 2**18
_BROKEN = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError)
# A key of this form would look like that of a record that was lost with its shard.
_LOST_KEY = re.compile("@[0-9]+")
_NO_TARGET = "a link to a file that does not stand before it in the tar"


@dataclass(frozen=True, slots=True)
class ShardImage:
    """One image of a shard.

    Attributes:
        key: Key of the image, for a tar the name of the member; a name that occurs again has `@<row>` at its end.
        size: Number of bytes of the image; None if a link names nothing that is known.
        label: Label that came with the image; None for no label.
        is_known: False if the audit does not know the label.
        refused: Reason why the image cannot have been decoded; None if there is no such reason.
    """

    key: str
    size: int | None
    label: str | None = None
    is_known: bool = True
    refused: str | None = None


def tar_images(
    path: Path, takes_image: Callable[[str], bool], rules: int = FIRST_RULES
) -> tuple[list[ShardImage], str | None]:
    """Returns the image members of a tar in order, and the reason why the tar breaks off, or None.

    If a tar breaks off, the images before the break are returned. Under the first rules of reading, links are no
    images.
    """
    contents = _Contents(takes_image, rules)
    with path.open("rb") as plain:
        is_packed = plain.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        plain.seek(0)
        unpacked = cast(io.RawIOBase, gzip.GzipFile(fileobj=plain))
        file = io.BufferedReader(unpacked, _BUFFER_BYTES) if is_packed else plain
        try:
            for number, (member, seen) in enumerate(_members(file, contents, is_packed=is_packed)):
                contents.add(number, member, seen)
        except _BROKEN as error:
            return contents.images(), " ".join(str(error).split())[:150] or type(error).__name__
    return contents.images(), None


@dataclass(frozen=True, slots=True)
class _Seen:
    """The part that was read of a member's data: a sidecar, or the reason why an image is refused."""

    sidecar: bytes | None = None
    refused: str | None = None


@dataclass(slots=True)
class _Contents:
    """The images of a tar that were found so far, and what labels and links need."""

    takes_image: Callable[[str], bool]
    rules: int
    keys: set[str] = field(default_factory=set)
    found: list[tuple[ShardImage, str, Sample]] = field(default_factory=list)
    # Size of each file that a link may name, and the reason why it is refused.
    targets: dict[str, tuple[int, str | None]] = field(default_factory=dict)
    samples: Samples = field(init=False)

    def __post_init__(self) -> None:
        self.samples = Samples(self.rules)

    def look(self, member: tarfile.TarInfo, file: BinaryIO, *, is_packed: bool) -> _Seen:
        """Reads a part of a regular member's data."""
        name = _as_text(member.name)
        if self.takes_image(name):
            if not is_packed:
                return _Seen(refused=refusal(lambda at, size: _part(member, file, at, size)))
            head = _part(member, file, 0, HEAD_BYTES)
            return _Seen(refused=refusal(lambda at, size: head[at : at + size]))
        if is_sidecar(name) and member.size <= MAX_SIDECAR_BYTES:
            return _Seen(sidecar=_part(member, file, 0, member.size))
        return _Seen()

    def add(self, number: int, member: tarfile.TarInfo, seen: _Seen) -> None:
        """Notes a member, in the order of the tar."""
        name, is_link = _as_text(member.name), self.rules != FIRST_RULES and (member.islnk() or member.issym())
        if not (is_link or member.isreg()):
            return
        size, refused = self._linked(member) if is_link else (member.size, seen.refused)
        if not is_link:
            self.targets[_plain(member.name)] = (member.size, seen.refused)
        if self.takes_image(name):
            sample = self.samples.add(name, number, member.offset)
            self.found.append((ShardImage(self._key(name), size, refused=refused), name, sample))
        elif is_sidecar(name) and member.size <= MAX_SIDECAR_BYTES:
            content = b"" if not member.size and not is_link else seen.sidecar
            self.samples.add_sidecar(name, number, member.offset, content)

    def images(self) -> list[ShardImage]:
        """Returns the images with their labels; call it after the last member."""
        return [
            ShardImage(image.key, image.size, *sample.label(name, self.rules), image.refused)
            for image, name, sample in self.found
        ]

    def _key(self, name: str) -> str:
        key = name
        while key in self.keys or (self.rules != FIRST_RULES and _LOST_KEY.fullmatch(key)):
            key += f"@{len(self.found)}"
        self.keys.add(key)
        return key

    def _linked(self, link: tarfile.TarInfo) -> tuple[int | None, str | None]:
        """Returns (size, reason of refusal) of the file that a link names, and notes the link's own name for it."""
        target = _plain(link.linkname)
        if link.issym():
            path = posixpath.normpath(posixpath.join(posixpath.dirname(link.name), link.linkname))
            target = path if link.linkname.startswith("/") else _plain(path)
        if target not in self.targets:
            return None, _NO_TARGET
        self.targets[_plain(link.name)] = self.targets[target]
        return self.targets[target]


def _as_text(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _plain(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _part(member: tarfile.TarInfo, file: BinaryIO, at: int, size: int) -> bytes:
    length = max(0, min(size, member.size - at))
    file.seek(member.offset_data + at)
    return file.read(length) if length else b""


class _GnuHeader(tarfile.TarInfo):
    """A header in which the times of an old GNU tar are no part of the name."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if buf[257:265] == tarfile.GNU_MAGIC:
            header.name = bytes(buf[:100]).partition(b"\0")[0].decode(encoding, errors)
            header.name = header.name.rstrip("/") if header.isdir() else header.name
        return header


def _members(file: BinaryIO, contents: _Contents, *, is_packed: bool) -> Iterator[tuple[tarfile.TarInfo, _Seen]]:
    """Yields the members that have all their bytes, of all archives that the file holds one after the other.

    `tarfile` ends without an error where a tar is cut between two members or continues with rubbish. So this function
    checks the bytes at which `tarfile` ended.

    Raises:
        tarfile.ReadError, EOFError, zlib.error: The tar breaks off.
    """
    start, has_end = 0, False
    header_type = tarfile.TarInfo if contents.rules == FIRST_RULES else _GnuHeader
    while True:
        start, num_empty = _skip_empty(file, start)
        has_end = has_end or num_empty > 0
        file.seek(start)
        if not file.read(1):
            if not has_end:
                raise EOFError("it ends without an end-of-archive marker" if start else "it is empty")
            return
        file.seek(start)
        archive = tarfile.TarFile(fileobj=file, encoding="utf-8", errors="surrogateescape", tarinfo=header_type)
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header otherwise
            seen = _Seen()
            if member.isreg() and member.size and not member.issparse():
                # The data are read before their end is looked for, since a gzipped file is slow to go back in.
                seen = contents.look(member, file, is_packed=is_packed)
                file.seek(member.offset_data + member.size - 1)
                if not file.read(1):
                    raise EOFError(f"it ends inside {member.name!r}")
            yield member, seen
        if archive.offset == start:
            raise tarfile.ReadError(f"there is no header at byte {start}")
        start, has_end = archive.offset, False


def _skip_empty(file: BinaryIO, start: int) -> tuple[int, int]:
    """Returns where the first block that is not empty begins, and the number of skipped blocks.

    If all blocks are empty, the position is the end of the file.
    """
    file.seek(start)
    skipped = 0
    while (block := file.read(tarfile.BLOCKSIZE)) and not block.strip(b"\0"):
        if len(block) < tarfile.BLOCKSIZE:
            return start + skipped * tarfile.BLOCKSIZE + len(block), skipped
        skipped += 1
    return start + skipped * tarfile.BLOCKSIZE, skipped
