"""Formats and depths that no job decodes, recognised by the first bytes of an image; docs/use/images.md has the list.

The audit reads headers alone, and names only what they state beyond doubt. It sees no pixels.
"""

import re
import struct
from collections.abc import Callable, Iterator

HEAD_BYTES = 64 * 1024
"""Number of bytes of an image that are read at most, where only the first bytes can be read."""

Reads = Callable[[int, int], bytes]
"""Function (offset, length) -> bytes of an image; fewer bytes at its end, or where they cannot be read."""

_MAGICS: tuple[tuple[bytes, str], ...] = (
    (rb"....ftyphe[iv][cxms]", "HEIC"),
    (rb"....ftypcrx ", "CR3"),
    (rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (rb"II....HEAPCCDR", "CRW"),
    (rb"FUJIFILMCCD-RAW", "RAF"),
    (rb"IIR[OS]|MMOR", "ORF"),
    (rb"IIU\0", "RW2"),
    (rb"FOVb", "X3F"),
    (rb"\0MRM", "MRW"),
    (rb"8BPS", "PSD"),
    (rb"II\xbc", "JPEG XR"),
    (rb"v/1\x01", "OpenEXR"),
    (rb"DDS ", "DDS"),
    (rb"qoif", "QOI"),
    (rb"%PDF-", "PDF"),
    (rb"%!PS", "PostScript"),
    (rb"\x89PNG\r\n\x1a\n....CgBI", "PNG of the CgBI kind"),
    (rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*(?:<!DOCTYPE svg\b|<svg[\s>])", "SVG"),
)
_PATTERNS = tuple((re.compile(magic, re.DOTALL), name) for magic, name in _MAGICS)
_HIGH_BRANDS = re.compile(rb"....ftypm[is]f[12]", re.DOTALL)
_AVIF_BRANDS = (b"avif", b"avis")
_CODESTREAM = b"\xff\x4f\xff\x51"
# Frame types of JPEG: hierarchical, and JPEG-LS.
_HIERARCHICAL, _LOSSLESS, _JPEG_LS = frozenset((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE)), (0xC3, 0xCB), 0xF7
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xDE, _JPEG_LS}
# The codecs of TIFF that no job has.
_TIFF_CODECS = {34712: "JPEG 2000", 34887: "LERC", 34933: "PNG", 34934: "JPEG XR", 50001: "WebP", 50002: "JPEG XL"}
_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_MOST_ENTRIES = 512
_BEYOND_FILES = 2**48


def refusal(read: Reads) -> str | None:
    """Returns the format or depth that makes an image one that no job decodes; None if the header names none."""

    def near(at: int, size: int) -> bytes:
        """Reads nothing at an offset that no file reaches, since a hostile header may state any number."""
        return read(at, size) if at < _BEYOND_FILES else b""

    return _refusal(near)


def _refusal(read: Reads) -> str | None:
    head = read(0, 4096)
    for pattern, name in _PATTERNS:
        if pattern.match(head):
            return name
    if _HIGH_BRANDS.match(head) and not any(brand in head[:80] for brand in _AVIF_BRANDS):
        return "HEIF"
    if head.startswith(b"\xff\xd8\xff"):
        return _of_jpeg(read)
    if head.startswith((b"\0\0\0\x0cjP  ", _CODESTREAM)):
        return _of_jpeg2000(head)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _of_tiff(head, read)
    return None


def _of_jpeg(read: Reads) -> str | None:
    at = 2
    for _ in range(1000):
        header = read(at, 10)
        if len(header) < 10 or header[0] != 0xFF:
            return None
        marker = header[1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _FRAMES:
            bits, components = header[4], header[9]
            if marker == _JPEG_LS:
                return "JPEG-LS"
            if marker in _HIERARCHICAL:
                return "hierarchical JPEG"
            if bits != 8:
                return f"JPEG of {bits} bits" if marker not in _LOSSLESS else f"lossless JPEG of {bits} bits"
            return f"JPEG of {components} components" if components == 2 or components > 4 else None
        if 0xD0 <= marker <= 0xDA or marker == 0x01:
            return None  # the pixels begin without a frame, so that the file is broken
        at += 2 + struct.unpack(">H", header[2:4])[0]
    return None


def _of_jpeg2000(head: bytes) -> str | None:
    at = head.find(_CODESTREAM)
    if at < 0 or len(head) < at + 42:
        return None
    (number,) = struct.unpack_from(">H", head, at + 40)
    sizes = head[at + 42 : at + 42 + 3 * number : 3]
    if number > 4:
        return f"JPEG 2000 of {number} components"
    most = max(((size & 0x7F) + 1 for size in sizes), default=0)
    return f"JPEG 2000 of {number} components of {most} bits" if most > (8 if number > 1 else 16) else None


def _of_tiff(head: bytes, read: Reads) -> str | None:
    if head.startswith(b"MM\0+"):
        return "big-endian BigTIFF"
    if head[8:10] == b"CR":
        return "CR2"
    tags = dict(_tags(head, read))
    if 50706 in tags:
        return "DNG"
    bits, kinds = tags.get(258, (1,)), tags.get(339, (1,))
    samples, codec = tags.get(277, (1,))[0], tags.get(259, (1,))[0]
    if codec in _TIFF_CODECS:
        return f"TIFF compressed as {_TIFF_CODECS[codec]}"
    if set(bits) & {10, 14, 64}:
        return f"TIFF of {bits[0]} bits"
    if 3 in kinds and bits[0] in (16, 24):
        return f"TIFF of float of {bits[0]} bits"
    if samples - len(tags.get(338, ())) > 1 and bits[0] == 32:
        return f"TIFF of {samples} samples of 32 bits"
    if bits[0] == 12 and head.startswith(b"MM"):
        return "big-endian TIFF of 12 bits"
    is_gray = tags.get(262, (2,))[0] in (0, 1)
    is_gray_alpha = is_gray and samples == 2 and tags.get(338, (0,))[0] in (1, 2)
    if is_gray_alpha and (bits[0] == 16 or tags.get(284) == (2,)):
        return f"TIFF of grey of {bits[0]} bits with alpha"
    return None


def _tags(head: bytes, read: Reads) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yields the whole numbers in the first directory of a TIFF or BigTIFF, by tag."""
    order, is_big = "<" if head.startswith(b"II") else ">", b"+" in head[2:4]
    offset_code, count_code = ("Q", "Q") if is_big else ("I", "H")
    width = 8 if is_big else 4
    try:
        (at,) = struct.unpack_from(order + offset_code, head, 8 if is_big else 4)
        counted = read(at, 8 if is_big else 2)
        (number,) = struct.unpack(order + count_code, counted)
        entries = read(at + len(counted), min(number, _MOST_ENTRIES) * (4 + 2 * width))
        for start in range(0, len(entries) - (3 + 2 * width), 4 + 2 * width):
            tag, kind, count = struct.unpack_from(f"{order}HH{offset_code}", entries, start)
            if kind not in _TIFF_TYPES:
                continue
            shape = f"{order}{min(count, 16)}{_TIFF_TYPES[kind]}"
            field = entries[start + 4 + width : start + 4 + 2 * width]
            if count * struct.calcsize(order + _TIFF_TYPES[kind]) > width:
                field = read(struct.unpack(order + offset_code, field)[0], struct.calcsize(shape))
            if count and len(field) >= struct.calcsize(shape):
                yield tag, struct.unpack_from(shape, field)
    except struct.error:
        return
