"""The files that links in a tar name: their bytes are those of an earlier member.

A tar is read from front to back, so a link gets the bytes of a member before it. In a tar that is not gzipped, these
bytes are read again. The bytes of a gzipped tar cannot be read again without the bytes before them, so the last of its
members are kept. A link to a member that is not in the tar, that stands behind the link, or that is not kept any more
becomes a failed record.
"""

import posixpath
import tarfile
from collections.abc import Callable

from pipeline.chunks.failures import ErrorCode, Failure

KEPT_BYTES = 32 * 2**20
"""Number of bytes of a gzipped tar's last members that are kept for links."""

# Largest number of members that links may name. The memory for so many names is less than 300 MiB.
_MAX_FILES = 2**20
_SHOWN_CHARACTERS = 100


class UnlinkedError(Exception):
    """A link whose bytes cannot be had, with the failure of its record."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Files:
    """The members of a tar that links may name.

    Args:
        read_again: function of the offset of a member's header, which returns the data of the member; None if the tar
            cannot be read again.
    """

    def __init__(self, read_again: Callable[[int], bytes] | None) -> None:
        self._read_again = read_again
        self._offsets: dict[str, int] = {}
        self._kept: dict[str, bytes] = {}
        self._kept_bytes = 0

    def wants(self, header: tarfile.TarInfo) -> bool:
        """Returns True if the data of a regular member must be read in case that a link names the member."""
        return self._read_again is None and header.size <= KEPT_BYTES

    def add(self, header: tarfile.TarInfo, data: bytes | None) -> None:
        """Notes a regular member, with its data if they were read."""
        self._note(_plain(header.name), header.offset, data)

    def linked(self, header: tarfile.TarInfo, *, is_wanted: bool) -> bytes | None:
        """Returns the data of the member that a link names, and notes the link as a further name of that member.

        Args:
            is_wanted: False only notes the link; the result is None.

        Raises:
            UnlinkedError: the data cannot be had.
        """
        target = _plain(header.linkname)
        if header.issym():
            target = posixpath.normpath(posixpath.join(posixpath.dirname(header.name), header.linkname))
            target = target if header.linkname.startswith("/") else _plain(target)
        offset = self._offsets.get(target)
        if offset is None:
            if not is_wanted:
                return None
            raise UnlinkedError(_missing(header.linkname))
        data = self._kept.get(target)
        if data is None and self._read_again is not None and is_wanted:
            data = self._read_again(offset)
        self._note(_plain(header.name), offset, data if target in self._kept else None)
        if data is None and is_wanted:
            message = (
                f"the member is a link to {_shown(header.linkname)}, which stands more than {KEPT_BYTES >> 20} MiB "
                "before the link in a gzipped tar; pack the tar without links, or without gzip"
            )
            raise UnlinkedError(Failure(ErrorCode.SOURCE_UNREADABLE, message))
        return data

    def _note(self, name: str, offset: int, data: bytes | None) -> None:
        for kept in (self._offsets, self._kept):
            # A name that comes again counts as new.
            dropped = kept.pop(name, None)
            self._kept_bytes -= len(dropped) if isinstance(dropped, bytes) else 0
        self._offsets[name] = offset
        if len(self._offsets) > _MAX_FILES:
            del self._offsets[next(iter(self._offsets))]
        if self._read_again is None and data is not None:
            self._kept[name] = data
            self._kept_bytes += len(data)
            while self._kept_bytes > KEPT_BYTES:
                self._kept_bytes -= len(self._kept.pop(next(iter(self._kept))))


def _plain(name: str) -> str:
    """Returns a name without the parts that change nothing, such as `./` at its beginning."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _missing(target: str) -> Failure:
    message = f"the member is a link to {_shown(target)}, and no file of that name stands before it in the tar"
    return Failure(ErrorCode.SOURCE_MISSING, message)


def _shown(name: str) -> str:
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= _SHOWN_CHARACTERS else f"...{text[-_SHOWN_CHARACTERS:]}")
