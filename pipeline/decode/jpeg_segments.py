"""Opens JPEGs with application segments over which Pillow fails, and which libjpeg-turbo passes over."""

import io

from PIL.JpegImagePlugin import JpegImageFile

from pipeline.decode.unsupported import UnsupportedError

_START_OF_SCAN = 0xDA
_ALONE = frozenset((0x00, 0x01, *range(0xD0, 0xDA)))  # markers without a segment
_JPEG_LS = 0xF7
_FRAMES = frozenset((*range(0xC0, 0xD0), _JPEG_LS)) - {0xC4, 0xC8, 0xCC}
_HIERARCHICAL = frozenset((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF))
_BITS = 8
_COMPONENTS = (1, 3, 4)
# Marker and first bytes -> length of the shortest segment that libjpeg-turbo and Pillow both read, without its marker.
_SHORTEST = {
    (0xE0, b"JFIF"): 16,
    (0xE2, b"ICC_PROFILE\0"): 16,
    (0xED, b"Photoshop 3.0"): 2**16,  # only a resolution, and Pillow fails over a cut one
    (0xEE, b"Adobe"): 14,
}


def open_jpeg(data: bytes) -> JpegImageFile:
    """Returns the opened JPEG.

    Raises:
        UnsupportedError: The JPEG is hierarchical, or has other depths or numbers of components than are decoded.
        Exception: The bytes are broken.
    """
    return JpegImageFile(io.BytesIO(_needed(data)))


def _needed(data: bytes) -> bytes:
    """Returns the JPEG without the segments that are too short to mean anything, and without Photoshop's.

    libjpeg-turbo takes such a segment for one that it does not know, so the pixels stay the same.
    """
    view, parts, kept_to, at = memoryview(data), [], 0, 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 4 <= len(data):
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        behind = at + 2 + length
        if marker == _START_OF_SCAN:
            break
        if marker == 0xFF or marker in _ALONE:
            at += 1 if marker == 0xFF else 2
            continue
        if length < 2 or behind > len(data):
            break
        if marker in _FRAMES:
            _check_frame(marker, data[at + 4 : behind])
        if any(
            marker == app and data.startswith(name, at + 4) and length < shortest
            for (app, name), shortest in _SHORTEST.items()
        ):
            parts.append(view[kept_to:at])
            kept_to = behind
        at = behind
    return b"".join((*parts, view[kept_to:])) if parts else data


def _check_frame(marker: int, frame: bytes) -> None:
    if len(frame) < 6:
        return
    if marker == _JPEG_LS:
        raise UnsupportedError("JPEG-LS")
    if marker in _HIERARCHICAL:
        raise UnsupportedError("hierarchical JPEG")
    if frame[0] != _BITS:
        raise UnsupportedError(f"JPEG of {frame[0]} bits per sample")
    if frame[5] not in _COMPONENTS:
        raise UnsupportedError(f"JPEG of {frame[5]} components")
