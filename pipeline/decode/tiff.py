"""Opens TIFFs of which Pillow gives the right pixels, and mends what Pillow gets wrong.

Pillow reads uncompressed planes of 16 bits as if they had eight, shows 0 as black where a file says that 0 is white,
reads unsigned numbers of 32 bits as signed ones, and takes numbers of libtiff in the machine's byte order for
big-endian ones. A layout that this module does not mend and Pillow does not decode rightly is refused by name; see
docs/design/adr/0026-odd-images.md.
"""

import io
import itertools
import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import TiffImagePlugin
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import COMPRESSION, PHOTOMETRIC_INTERPRETATION, PLANAR_CONFIGURATION, TiffImageFile

from pipeline.decode.unsupported import UnsupportedError

_BIG_BIG_ENDIAN = b"MM\0+"
_Tags = dict[int, tuple[int, ...]]

_WIDTH, _LENGTH, _BITS, _SAMPLES, _FORMAT = 256, 257, 258, 277, 339
_STRIPS, _TILES, _MAKE, _SUB_DIRECTORIES, _SUBSAMPLING, _DNG = 273, 324, 271, 330, 530, 50706
_WANTED = frozenset((
    254, _WIDTH, _LENGTH, _BITS, COMPRESSION, PHOTOMETRIC_INTERPRETATION, _MAKE, _STRIPS, _SAMPLES,
    PLANAR_CONFIGURATION, _TILES, _SUB_DIRECTORIES, _FORMAT, _SUBSAMPLING, _DNG,
))  # fmt: skip
# Type of a value -> its struct code: bytes, text, unsigned numbers and offsets.
_CODES = {1: "B", 2: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_MOST_ENTRIES, _MOST_VALUES, _MOST_SUB_DIRECTORIES = 4096, 64, 16

_WHITE_IS_ZERO, _RGB, _YCBCR, _SENSOR, _LINEAR_SENSOR = 0, 2, 6, 32803, 34892
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_UNCOMPRESSED, _WEBP, _SEPARATE = 1, 50001, 2
_SENSOR_COMPRESSIONS = frozenset((32767, 32769, 32770, 34713, 65000, 65535))
_MAKES = {b"NIKON": "NEF", b"SONY": "ARW", b"CANON": "CR2", b"PENTAX": "PEF", b"SAMSUNG": "SRW", b"OLYMPUS": "ORF"}
_FORMAT_NAMES = {_UNSIGNED: "unsigned", _SIGNED: "signed", _FLOAT: "float"}

# Pillow's table of layouts, and some that its decoders know: 0 is white at 12, 16 and 32 bits; 32 bits big-endian.
_LAYOUTS = TiffImagePlugin.OPEN_INFO | {
    (b"MM", 0, (1,), 1, (16,), ()): ("I;16B", "I;16B"),
    (b"II", 0, (1,), 1, (32,), ()): ("I", "I;32N"),
    (b"MM", 0, (1,), 1, (32,), ()): ("I", "I;32BS"),
    (b"MM", 1, (1,), 1, (32,), ()): ("I", "I;32BS"),
    (b"II", 0, (1,), 1, (12,), ()): ("I;16", "I;12"),
}
# libtiff gives numbers in the machine's byte order; Pillow knows this of unsigned 16-bit numbers alone.
_NATIVE = {"F;32F": "F;32NF", "F;32BF": "F;32NF", "I;32S": "I;32NS", "I;32BS": "I;32NS", "I;16S": "I;16NS"} | {
    "I;16BS": "I;16NS",
}


def open_tiff(data: bytes) -> TiffImageFile:
    """Returns the opened first image of a TIFF.

    Raises:
        UnsupportedError: The file is raw data of a camera, or has a layout that is not decoded.
        Exception: The bytes are broken.
    """
    tags = _directory(data, None)
    if (raw := _camera_format(data, tags)) is not None:
        raise UnsupportedError(raw)
    # The libtiff of Pillow's wheels is built without WebP.
    if data.startswith(_BIG_BIG_ENDIAN) or _first(tags, COMPRESSION) == _WEBP:
        raise UnsupportedError(_layout(data, tags))
    try:
        image = _opened(data, tags)
    except SyntaxError as error:  # also over tags that Pillow does not know
        if _is_whole(tags):
            raise UnsupportedError(_layout(data, tags)) from error
        raise
    if image.use_load_libtiff:
        (tile,) = image.tile
        assert isinstance(tile.args, tuple)
        image.tile = [tile._replace(args=(_NATIVE.get(tile.args[0], tile.args[0]), *tile.args[1:]))]
    if image.mode in ("LA", "La", "PA") and tags.get(PLANAR_CONFIGURATION) == (_SEPARATE,):
        raise UnsupportedError("TIFF of grey and alpha in separate planes")
    return image


def _opened(data: bytes, tags: _Tags) -> TiffImageFile:
    """Returns what Pillow opens with the settings that this module needs; other users of Pillow keep theirs."""
    settings = TiffImagePlugin.OPEN_INFO, TiffImagePlugin.READ_LIBTIFF
    try:
        TiffImagePlugin.OPEN_INFO, TiffImagePlugin.READ_LIBTIFF = _LAYOUTS, _needs_libtiff(tags)
        return TiffImageFile(io.BytesIO(data))
    finally:
        TiffImagePlugin.OPEN_INFO, TiffImagePlugin.READ_LIBTIFF = settings


def gray_values(image: ImageFile) -> npt.NDArray[np.generic]:
    """Returns the numbers of a decoded image of mode I, I;16 or F; those of a TIFF as the file means their sign."""
    values = np.asarray(image)
    if isinstance(image, TiffImageFile) and image.mode == "I":
        bits, kind = image.tag_v2.get(_BITS, (1,)), image.tag_v2.get(_FORMAT, (_UNSIGNED,))
        if bits[0] == 32 and kind[0] == _UNSIGNED:
            return values.view(np.uint32)
    return values


def is_white_zero(image: ImageFile) -> bool:
    """Returns whether a TIFF states that 0 is white."""
    return isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO


def _needs_libtiff(tags: _Tags) -> bool:
    """Returns whether libtiff must read uncompressed pixels, since Pillow reads planes and halved colours wrongly."""
    is_halved = _first(tags, PHOTOMETRIC_INTERPRETATION) == _YCBCR and tags.get(_SUBSAMPLING, (1, 1)) != (1, 1)
    return is_halved or _first(tags, PLANAR_CONFIGURATION) == _SEPARATE


def _is_whole(tags: _Tags) -> bool:
    """Returns whether a directory states a size and where the pixels lie."""
    return min(_first(tags, _WIDTH), _first(tags, _LENGTH)) > 0 and (_STRIPS in tags or _TILES in tags)


def _layout(data: bytes, tags: _Tags) -> str:
    """Returns the layout of a TIFF in words, such as "TIFF (3 samples of 32 bits, float, photometric 2)"."""
    kind = _first(tags, _FORMAT, _UNSIGNED)
    parts = [
        f"{_first(tags, _SAMPLES, 1)} x {_first(tags, _BITS, 1)} bits",
        _FORMAT_NAMES.get(kind, f"sample format {kind}"),
        f"photometric {_first(tags, PHOTOMETRIC_INTERPRETATION)}",
        f"compression {_first(tags, COMPRESSION, 1)}",
    ]
    if _first(tags, PLANAR_CONFIGURATION) == _SEPARATE:
        parts.append("separate planes")
    name = "big-endian BigTIFF" if data.startswith(_BIG_BIG_ENDIAN) else "TIFF"
    return f"{name} ({', '.join(parts)})"


def _camera_format(data: bytes, tags: _Tags) -> str | None:
    """Returns the name of a camera's raw format, such as "NEF"; None for another TIFF.

    The first image of such a file is mostly a small preview.
    """
    if data[8:10] == b"CR":
        return "CR2"
    if _DNG in tags:
        return "DNG"
    make = bytes(value for value in tags.get(_MAKE, ()) if value < 256).upper()
    name = next((name for maker, name in _MAKES.items() if make.startswith(maker)), None)
    offsets = tags.get(_SUB_DIRECTORIES, ())[:_MOST_SUB_DIRECTORIES]
    if name is not None and offsets and _first(tags, 254) == 1:
        return name
    for directory in itertools.chain((tags,), (_directory(data, offset) for offset in offsets)):
        if (
            _first(directory, PHOTOMETRIC_INTERPRETATION) in (_SENSOR, _LINEAR_SENSOR)
            or _first(directory, COMPRESSION) in _SENSOR_COMPRESSIONS
        ):
            return name or "camera raw"
    return None


def _first(tags: _Tags, tag: int, default: int = 0) -> int:
    return next(iter(tags.get(tag, ())), default)


def _directory(data: bytes, at: int | None) -> _Tags:
    """Returns the wanted tags of a directory, the first values of each; values outside of the file are left out.

    Args:
        data: A TIFF or BigTIFF of either byte order.
        at: Offset of the directory; None for the first one.
    """
    return dict(_entries(data, at))


def _entries(data: bytes, at: int | None) -> Iterator[tuple[int, tuple[int, ...]]]:
    order = "<" if data.startswith(b"II") else ">"
    is_big = b"+" in data[2:4]
    count_code, offset_code = ("Q", "Q") if is_big else ("H", "I")
    offset_bytes = struct.calcsize(offset_code)
    entry_bytes = 4 + 2 * offset_bytes
    try:
        if at is None:
            (at,) = struct.unpack_from(order + offset_code, data, 8 if is_big else 4)
        (num_entries,) = struct.unpack_from(order + count_code, data, at)
        at += struct.calcsize(count_code)
        for entry in range(at, at + entry_bytes * min(num_entries, _MOST_ENTRIES), entry_bytes):
            tag, kind, count = struct.unpack_from(f"{order}HH{offset_code}", data, entry)
            if tag not in _WANTED or kind not in _CODES:
                continue
            where = entry + 4 + offset_bytes
            if count * struct.calcsize(order + _CODES[kind]) > offset_bytes:
                (where,) = struct.unpack_from(order + offset_code, data, where)
            values = f"{order}{min(count, _MOST_VALUES)}{_CODES[kind]}"
            if where + struct.calcsize(values) <= len(data):
                yield tag, struct.unpack_from(values, data, where)
    except (struct.error, OverflowError):
        return  # The directory ends with the file.
