"""Opens PNGs without the chunks that say nothing about pixels.

Pillow refuses a whole PNG over one bad ancillary chunk: a wrong checksum, a chunk that is too short, a text or a
profile that inflates beyond 1 MiB. libpng passes over such a chunk. So the chunks that are not needed are taken out
before Pillow sees the file. What is taken out is never inflated.
"""

import io
import re
import zlib

from PIL.PngImagePlugin import MAX_TEXT_CHUNK, PngImageFile

from pipeline.decode.unsupported import UnsupportedError

_MAGIC = b"\x89PNG\r\n\x1a\n"
_NAME = re.compile(rb"\w{4}")  # what Pillow takes for the name of a chunk
_IS_ANCILLARY = 0x20
# Text that may hold an orientation. An image has one of each; many could fill the memory.
_TURNING_TEXTS = (b"XML:com.adobe.xmp", b"Raw profile type exif", b"exif")
_MOST_TEXTS = 8
_KEY_BYTES = {0: 2, 2: 6}  # colour type -> bytes of a transparent colour
_PALETTE = 3


def open_png(data: bytes) -> PngImageFile:
    """Returns the opened PNG: of an animation, the image that stands outside of it.

    Raises:
        UnsupportedError: The PNG is one of Apple's, which only Apple's software reads.
        Exception: The bytes are broken.
    """
    return PngImageFile(io.BytesIO(_needed(data)))


def _needed(data: bytes) -> bytes:
    """Returns a PNG with its critical chunks, its transparency and its orientation, all as they are in the file.

    From the first bytes on that are no chunk, everything is kept, so that Pillow finds the fault.
    """
    if not data.startswith(_MAGIC):
        return data
    view, at, parts = memoryview(data), len(_MAGIC), [memoryview(_MAGIC)]
    palette_entries, num_texts, may_have_key = 0, 0, True
    while at + 12 <= len(data):
        length, name = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        behind = at + 12 + length
        if not _NAME.fullmatch(name) or behind > len(data):
            break
        body = view[at + 8 : behind - 4]
        if name == b"CgBI":
            raise UnsupportedError("PNG of Apple's CgBI kind")
        if name == b"PLTE":
            palette_entries = length // 3
        elif name == b"IDAT":
            may_have_key = False
        if not name[0] & _IS_ANCILLARY:
            keep = True
        elif zlib.crc32(view[at + 4 : behind - 4]) != int.from_bytes(data[behind - 4 : behind]):
            keep = False
        elif name == b"tRNS":
            keep = may_have_key and _is_key(length, data[25], palette_entries)
            may_have_key = may_have_key and not keep
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            keep = num_texts < _MOST_TEXTS and _may_turn(name, body)
            num_texts += keep
        else:
            keep = name == b"eXIf"
        if keep:
            parts.append(view[at:behind])
        at = behind
        if name == b"IEND":
            return b"".join(parts)
    parts.append(view[at:])
    return b"".join(parts)


def _is_key(length: int, color_type: int, palette_entries: int) -> bool:
    """Returns whether libpng would take a tRNS chunk of this length."""
    if color_type == _PALETTE:
        return 0 < length <= palette_entries
    return length == _KEY_BYTES.get(color_type)


def _may_turn(name: bytes, body: memoryview) -> bool:
    """Returns whether a text may hold an orientation, and Pillow reads the text."""
    keyword, _, rest = bytes(body).partition(b"\0")
    if keyword not in _TURNING_TEXTS:
        return False
    if name == b"tEXt":
        return True
    if name == b"zTXt":
        return rest[:1] == b"\0" and _inflates(rest[1:])
    return rest[:1] == b"\0" or _inflates(rest[2:].split(b"\0", 2)[-1])


def _inflates(packed: bytes) -> bool:
    """Returns whether a text is not longer than what Pillow inflates."""
    inflater = zlib.decompressobj()
    try:
        inflater.decompress(packed, MAX_TEXT_CHUNK)
    except zlib.error:
        return False
    return not inflater.unconsumed_tail
