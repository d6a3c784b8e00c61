"""Names what is whole but not decoded, by its first bytes; the list for users is in docs/use/images.md."""

import re

_NAMES: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("HEIC", re.compile(rb"....ftyp(?:hei[cxms]|hev[cxms])", re.DOTALL)),
    ("HEIC", re.compile(rb"....ftypm[is]f1.{0,64}?(?:hei[cxms]|hev[cxms])", re.DOTALL)),
    ("HEIF", re.compile(rb"....ftyp(?:m[is]f[12]|m[is]a[12]|jpe[gs]|avc[is])", re.DOTALL)),
    ("JPEG XL", re.compile(rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n")),
    ("CR3", re.compile(rb"....ftypcrx ", re.DOTALL)),
    ("CRW", re.compile(rb"II....HEAPCCDR", re.DOTALL)),
    ("RAF", re.compile(rb"FUJIFILMCCD-RAW")),
    ("ORF", re.compile(rb"IIR[OS]|MMOR")),
    ("RW2", re.compile(rb"IIU\0")),
    ("X3F", re.compile(rb"FOVb")),
    ("MRW", re.compile(rb"\0MRM")),
    ("PSD", re.compile(rb"8BPS")),
    ("JPEG XR", re.compile(rb"II\xbc")),
    ("OpenEXR", re.compile(rb"v/1\x01")),
    ("DDS", re.compile(rb"DDS ")),
    ("QOI", re.compile(rb"qoif")),
    ("PDF", re.compile(rb"%PDF-")),
    ("PostScript", re.compile(rb"%!PS")),
)
_TEXT_BYTES = 4096
# What may stand before the first element of an XML file.
_PROLOG = re.compile(r"\s+|<\?.*?\?>|<!--.*?-->", re.DOTALL)
_SVG = re.compile(r"<(?:[\w.-]+:)?svg[\s>/]|<!DOCTYPE\s+svg\b", re.IGNORECASE)


class UnsupportedError(Exception):
    """The bytes are an image that is not decoded; the message is a sentence that names the format."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not decoded")


def unsupported_name(data: bytes) -> str | None:
    """Returns the name of a format that is recognised but not decoded, such as "HEIC"; None for other bytes."""
    for name, magic in _NAMES:
        if magic.match(data):
            return name
    return "SVG" if _is_svg(data[:_TEXT_BYTES]) else None


def _is_svg(head: bytes) -> bool:
    """Returns whether an XML file's first element is `svg`."""
    is_utf16 = head[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = head.decode("utf-16" if is_utf16 else "utf-8-sig", errors="replace")
    at = 0
    while (skipped := _PROLOG.match(text, at)) is not None:
        at = skipped.end()
    return _SVG.match(text, at) is not None
