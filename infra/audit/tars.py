"""The image members of a tar, found by the standard library's `tarfile`, and whether the tar is whole."""

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

_GZIP_MAGIC = b"\x1f\x8b"
_BUFFER_BYTES = 2**18
_BROKEN = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError)


def tar_images(path: Path, takes_image: Callable[[str], bool]) -> tuple[list[tuple[str, int]], str | None]:
    """Returns (key, size in bytes) of each image member in order, and the reason why the tar breaks off, or None.

    A key is the member's name; a name that occurs again gets `@<row>` at its end. If a tar breaks off, the images
    before the break are returned.
    """
    found: list[tuple[str, int]] = []
    keys: set[str] = set()
    with path.open("rb") as plain:
        is_packed = plain.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        plain.seek(0)
        unpacked = cast(io.RawIOBase, gzip.GzipFile(fileobj=plain))
        file = io.BufferedReader(unpacked, _BUFFER_BYTES) if is_packed else plain
        try:
            for member in _members(file):
                key = member.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                if not member.isreg() or not takes_image(key):
                    continue
                while key in keys:
                    key += f"@{len(found)}"
                keys.add(key)
                found.append((key, member.size))
        except _BROKEN as error:
            return found, " ".join(str(error).split())[:150] or type(error).__name__
    return found, None


def _members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Yields the members that have all their bytes, of all archives that the file holds one after the other.

    `tarfile` ends without an error where a tar is cut between two members or continues with rubbish. So this function
    checks the bytes at which `tarfile` ended.

    Raises:
        tarfile.ReadError, EOFError, zlib.error: The tar breaks off.
    """
    start, has_end = 0, False
    while True:
        start, num_empty = _skip_empty(file, start)
        has_end = has_end or num_empty > 0
        file.seek(start)
        if not file.read(1):
            if not has_end:
                raise EOFError("it ends without an end-of-archive marker" if start else "it is empty")
            return
        file.seek(start)
        archive = tarfile.TarFile(fileobj=file, encoding="utf-8", errors="surrogateescape")
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header otherwise
            if member.isreg() and member.size and not member.issparse():
                file.seek(member.offset_data + member.size - 1)
                if not file.read(1):
                    raise EOFError(f"it ends inside {member.name!r}")
            yield member
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
