"""Reads a tar from front to back: images in the tar's order, joined with the labels and captions beside them.

Memory stays bounded whatever the tar holds, and the records depend on the bytes of the tar alone. A tar that is cut at
any byte gives the images that are whole and then a failed record; the standard library would end without an error.
"""

import gzip
import math
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO, Self, cast

from pipeline.chunks.bugs import explain
from pipeline.chunks.failures import ErrorCode, Failure
from pipeline.inputs.record import MAX_ENCODED_BYTES, ReaderOptions, Record, ShardEnd
from pipeline.inputs.rules import FIRST_RULES
from pipeline.inputs.tar_links import Files, UnlinkedError
from pipeline.inputs.tar_sidecars import MAX_SIDECAR_BYTES, Joiner, Member, is_sidecar

_GZIP_MAGIC = b"\x1f\x8b"
_FETCH_BYTES = 2**20
_INFLATE_BYTES = 2**18
# Types of the blocks that hold a long name or attributes of the next member; tarfile reads such a block whole.
_HEADER_TYPES = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_MAX_HEADER_BYTES = 2**20
# Largest number of bytes of all blocks before one member together: tarfile itself has no limit for the map of a sparse
# file, and for headers of headers.
_MAX_HEADERS_BYTES = 4 * 2**20
# GNU tar's type of a folder with the list of its files, in incremental archives.
_DUMPED_FOLDER = b"D"
# Attributes that a header may set for all later members; tarfile would keep any other attribute, too.
_LASTING = {*tarfile.PAX_FIELDS, "hdrcharset"}


def read_tar(file: BinaryIO, options: ReaderOptions, start_row: int = 0) -> Iterator[Record | ShardEnd]:
    """Yields the images of a tar, gzipped or not, from `start_row` on, then a `ShardEnd`.

    A record is a regular member whose name is selected, or a link with such a name (`pipeline.inputs.tar_links`); the
    key of the record is that name. Members `.cls`, `.json` and `.txt` are joined to the images beside them
    (`pipeline.inputs.tar_sidecars`). Every other member, except folders, is counted as ignored. A tar that breaks off
    ends with a record without a key, `source.truncated`. A file that is no tar gives only a record without a
    key, `source.unreadable`.

    Args:
        file: the tar from its first byte. Only `read` is called, and also `tell` and `seek` for a link in a tar that is
            not gzipped. Errors of these methods pass through unchanged.
        options: columns to keep are fields of the `.json`, or endings (`cls`, `txt`); `caption` is also looked for in
            the `.txt`.
        start_row: first row that is yielded. The rows before that row are read, too, since a tar has no index.
    """
    for row, item in enumerate(_records(file, options)):
        if row >= start_row or isinstance(item, ShardEnd):
            yield item


def bytes_in_tar(record: Record) -> int:
    """Returns the bytes of a record in a tar: header and data in whole blocks, and two blocks for a label's sidecar."""
    members = [len(record.data or b"")] + ([1] if record.true_label is not None else [])
    return sum(tarfile.BLOCKSIZE + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE for size in members)


def _records(file: BinaryIO, options: ReaderOptions) -> Iterator[Record | ShardEnd]:
    source = _Forward(file.read, _FETCH_BYTES)
    joiner = Joiner(options.keep_columns, options.rules)
    members = _members(file, source, options)
    failure = None
    while True:
        try:
            member = next(members, None)
        except Exception as error:  # any error of tarfile or gzip over broken bytes becomes a failed record
            if source.error is not None:
                raise source.error from None
            failure = _failure(error, joiner.num_images)
            break
        if member is None:
            break
        yield from joiner.add(member)
    yield from joiner.flush()
    if failure is not None:
        yield Record(None, None, failure=failure, ignored=joiner.take_ignored(), passed_over=joiner.take_passed_over())
    yield ShardEnd(joiner.take_ignored(), joiner.take_passed_over())


def _failure(error: Exception, num_images: int) -> Failure:
    if isinstance(error, _NoTarError):
        return Failure(ErrorCode.SOURCE_UNREADABLE, str(error))
    return Failure(ErrorCode.SOURCE_TRUNCATED, explain(error, f"the tar breaks off after image {num_images}"))


def _members(file: BinaryIO, source: "_Forward", options: ReaderOptions) -> Iterator[Member]:
    stream, is_packed = source, source.peek(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    if is_packed:
        # read1 returns the bytes that were inflated before a broken byte; the next call raises the error.
        stream = _Forward(gzip.GzipFile(fileobj=cast(IO[bytes], source), mode="rb").read1, _INFLATE_BYTES)
    _check_begins_as_tar(stream)
    follows_links = options.rules != FIRST_RULES
    archive = _open(stream, _FirstHeader if options.rules == FIRST_RULES else _Header)
    files = Files(None if is_packed else lambda offset: _read_again(file, source, offset))
    while (header := archive.next()) is not None:
        archive.members.clear()  # tarfile keeps every header it has seen
        archive.pax_headers = {name: said for name, said in archive.pax_headers.items() if name in _LASTING}
        if header.isdir() or header.type == _DUMPED_FOLDER:
            continue
        # A member's name may be no UTF-8, but the column of keys holds UTF-8 only.
        name = header.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        is_link = follows_links and (header.islnk() or header.issym())
        is_image = (is_link or header.isreg()) and options.takes_image(name)
        is_text = (is_link or header.isreg()) and header.size <= MAX_SIDECAR_BYTES and is_sidecar(name)
        data, failure = None, None
        if is_image and header.size > MAX_ENCODED_BYTES:
            message = f"the member has {header.size} bytes, more than an image may have"
            failure = Failure(ErrorCode.IMAGE_TOO_LARGE, message)
        elif is_link:
            try:
                data = files.linked(header, is_wanted=is_image or is_text)
            except UnlinkedError as error:
                failure = error.failure
        elif is_image or is_text or (follows_links and header.isreg() and files.wants(header)):
            data = cast(IO[bytes], archive.extractfile(header)).read(header.size)
        if follows_links and header.isreg():
            files.add(header, data)
        if is_image:
            yield Member(name=name, is_image=True, data=data, failure=failure)
        elif is_text and data is not None and len(data) <= MAX_SIDECAR_BYTES:
            yield Member(name=name, data=data)
        else:
            yield Member(name=name, ending=options.ending_left_out(name))


def _open(stream: "_Forward", header_type: type["_FirstHeader"]) -> "_Archive":
    return _Archive(
        fileobj=cast(IO[bytes], stream),
        tarinfo=header_type,
        encoding="utf-8",
        errors="surrogateescape",
        ignore_zeros=True,  # another tar may follow behind the end marker of a tar
    )


def _read_again(file: BinaryIO, source: "_Forward", offset: int) -> bytes:
    """Returns the data of the member whose header begins at `offset`; raises `UnlinkedError` if they are too large."""
    position = file.tell()
    again = _Forward(file.read, _FETCH_BYTES)
    try:
        file.seek(offset)
        archive = _open(again, _Header)
        header = cast(tarfile.TarInfo, archive.next())
        if header.size > MAX_ENCODED_BYTES:
            message = f"the linked member has {header.size} bytes, more than an image may have"
            raise UnlinkedError(Failure(ErrorCode.IMAGE_TOO_LARGE, message))
        return cast(IO[bytes], archive.extractfile(header)).read(header.size)
    finally:
        source.error = again.error
        file.seek(position)


def _check_begins_as_tar(stream: "_Forward") -> None:
    """Raises `_NoTarError` if the first header is broken or the file is empty; a header that is cut is found later."""
    try:
        block = stream.peek(tarfile.BLOCKSIZE)
        if len(block) == tarfile.BLOCKSIZE and block.strip(b"\0"):
            tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (gzip.BadGzipFile, zlib.error, tarfile.HeaderError) as error:
        raise _NoTarError(explain(error, "this is no tar")) from None
    if not block:
        raise _NoTarError("the file is empty")


class _NoTarError(Exception):
    """The file is no tar from its first byte."""


class _Archive(tarfile.TarFile):
    """A tar that records whether the last block that was read belongs to its end marker."""

    members: list[tarfile.TarInfo]
    at_end = False


class _FirstHeader(tarfile.TarInfo):
    """A header that raises an error where tarfile would take broken or missing bytes for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        assert isinstance(archive, _Archive)
        source = cast(_Forward, archive.fileobj)
        block = source.peek(tarfile.BLOCKSIZE)
        if block.strip(b"\0"):
            archive.at_end = False
            if len(block) < tarfile.BLOCKSIZE:
                raise EOFError("it ends inside a header")
        elif len(block) == tarfile.BLOCKSIZE:
            archive.at_end = True
        elif not archive.at_end:
            raise EOFError("it ends without an end-of-archive marker")
        try:
            with source.at_most(_MAX_HEADERS_BYTES):
                return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if archive.at_end:
                raise  # tarfile ends its iteration by this error
            raise tarfile.ReadError(str(error)) from None

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in _HEADER_TYPES and header.size > _MAX_HEADER_BYTES):
            raise tarfile.ReadError(f"a header with a length of {header.size} bytes")
        return header


class _Header(_FirstHeader):
    """A header as GNU tar understands it: in GNU's older format a prefix of the name would be times of the file."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if buf[257:265] == tarfile.GNU_MAGIC:
            name = tarfile.nts(buf[:100], encoding, errors)  # type: ignore[attr-defined]
            header.name = name.rstrip("/") if header.isdir() else name
        return header


class _Forward:
    """A file for tarfile and gzip whose bytes are fetched from front to back.

    Attributes:
        error: error that fetching raised, kept so that a failing store is not taken for broken bytes; None if no fetch
            has failed.
    """

    def __init__(self, fetch: Callable[[int], bytes], fetch_bytes: int) -> None:
        self.error: Exception | None = None
        self._fetch = fetch
        self._fetch_bytes = fetch_bytes
        self._ahead = memoryview(b"")
        self._position = 0
        self._end = math.inf

    @contextmanager
    def at_most(self, size: int) -> Iterator[None]:
        """Limits the bytes that are read in a `with` block; a nested block keeps to the limits of both blocks.

        Raises:
            tarfile.ReadError: raised by `read` if more bytes are asked for.
        """
        outer, self._end = self._end, min(self._end, self._position + size)
        try:
            yield
        finally:
            self._end = outer

    def _fetch_more(self) -> bytes:
        try:
            return self._fetch(self._fetch_bytes)
        except Exception as error:
            self.error = error
            raise

    def peek(self, size: int) -> bytes:
        """Returns the next `size` bytes without passing over them; fewer bytes only at the end of the file."""
        while len(self._ahead) < size and (more := self._fetch_more()):
            self._ahead = memoryview(bytes(self._ahead) + more)
        return bytes(self._ahead[:size])

    def read(self, size: int) -> bytes:
        """Returns the next `size` bytes; fewer bytes only at the end of the file."""
        if self._position + size > self._end:
            raise tarfile.ReadError(f"headers of more than {_MAX_HEADERS_BYTES} bytes before one member")
        parts = []
        while size > 0:
            if not self._ahead:
                self._ahead = memoryview(self._fetch_more())
            part, self._ahead = self._ahead[:size], self._ahead[size:]
            if not part:
                break
            parts.append(part)
            size -= len(part)
            self._position += len(part)
        return b"".join(parts)

    def tell(self) -> int:
        """Returns the number of bytes that were read."""
        return self._position

    def seek(self, position: int) -> int:
        """Reads on to a position, or to the end of a shorter file; returns the position that was reached.

        Raises:
            tarfile.StreamError: the position was passed already.
        """
        if position < self._position:
            raise tarfile.StreamError("a member that begins before the one before it ends")
        while self._position < position and self.read(min(_FETCH_BYTES, position - self._position)):
            pass
        return self._position
