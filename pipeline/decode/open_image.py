"""Recognises the format of an image by its first bytes, and opens it with Pillow's plugin or with a mending opener."""

import io
import re
from collections.abc import Callable
from typing import IO

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL.ImageFile import ImageFile

from pipeline.chunks.size_policy import MAX_SOURCE_PIXELS
from pipeline.decode.jpeg2000 import open_jpeg2000
from pipeline.decode.jpeg_segments import open_jpeg
from pipeline.decode.png import open_png
from pipeline.decode.tiff import open_tiff

# Pillow refuses images of more than twice this number of pixels. This guards sizes that only Pillow reads: those of
# frames, tiles and icons.
Image.MAX_IMAGE_PIXELS = MAX_SOURCE_PIXELS // 2
# A decode task has one core.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
Plugin = Callable[[IO[bytes]], ImageFile]
# Name of each format, its first bytes, and the plugin that opens it. `Image.open` is not used: it tries the plugins of
# all formats, checks the size before this module can read it, and hides the reason why a plugin failed.
_FORMATS: tuple[tuple[str, re.Pattern[bytes], Plugin], ...] = (
    # An MPO is a JPEG with more JPEGs behind it.
    ("JPEG", re.compile(rb"\xff\xd8\xff"), JpegImagePlugin.JpegImageFile),
    ("PNG", re.compile(rb"\x89PNG"), PngImagePlugin.PngImageFile),
    ("WebP", re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
    ("GIF", re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    ("BMP", re.compile(rb"BM"), BmpImagePlugin.BmpImageFile),
    ("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]|II\0\*|MM\*\0"), TiffImagePlugin.TiffImageFile),
    ("AVIF", re.compile(rb"....ftyp(?:avi[fs]|m[is]f1.{0,64}avi[fs])", re.DOTALL), AvifImagePlugin.AvifImageFile),
    ("JPEG 2000", re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n"), Jpeg2KImagePlugin.Jpeg2KImageFile),
    ("PNM", re.compile(rb"P(?:[1-6f]|0CMYK|yP|yRGBA|yCMYK)[ \t-\r]"), PpmImagePlugin.PpmImageFile),
    ("ICO", re.compile(rb"\0\0\x01\0"), IcoImagePlugin.IcoImageFile),
)
# Formats in which the plugin refuses whole images or gives wrong pixels; other formats are opened by the plugin alone.
MENDED: dict[str, Callable[[bytes], ImageFile]] = {
    "JPEG": open_jpeg,
    "PNG": open_png,
    "TIFF": open_tiff,
    "JPEG 2000": open_jpeg2000,
}
_TIFF_SPANS = ((273, 279), (324, 325))  # offsets and lengths of strips, and of tiles


def open_image(data: bytes, image_format: str, plugin: Plugin) -> ImageFile:
    """Opens an image whose format `sniff` has found; what is wrong with its bytes is raised as the format raises it."""
    opener = MENDED.get(image_format)
    return plugin(io.BytesIO(data)) if opener is None else opener(data)


def sniff(data: bytes) -> tuple[str, Plugin | None]:
    """Returns the name of the format and its plugin; an empty text and None for an unknown format."""
    for image_format, magic, plugin in _FORMATS:
        if magic.match(data):
            return image_format, plugin
    return "", None


def orientation_of(image: ImageFile) -> int:
    """Returns the EXIF orientation, 1 to 8; 1 if it is missing or unreadable, since the pixels may be fine."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return 1  # Pillow turns a TIFF itself, and its size is that of the turned image from the start.
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Only Pillow's code runs here; broken bytes make it raise anything.
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def check_whole(image: ImageFile, data: bytes) -> None:
    """Raises OSError for a truncated file that its codec would accept, with the rest of the image grey or black."""
    if isinstance(
        image, Jpeg2KImagePlugin.Jpeg2KImageFile
    ):  # If the file is cut between two tiles, only the end marker is missing.
        whole = data.rfind(b"\xff\xd9") > data.find(b"\xff\x4f\xff\x51")
    elif isinstance(image, TiffImagePlugin.TiffImageFile) and image.use_load_libtiff:
        spans = (zip(image.tag_v2.get(at, ()), image.tag_v2.get(n, ()), strict=False) for at, n in _TIFF_SPANS)
        whole = all(offset + num_bytes <= len(data) for span in spans for offset, num_bytes in span)
    else:
        return
    if not whole:
        raise OSError("image file is truncated")
