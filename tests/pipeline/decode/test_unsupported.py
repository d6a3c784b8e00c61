import struct

import pytest

from pipeline.chunks.failures import ErrorCode
from pipeline.chunks.size_policy import SizePolicy
from pipeline.decode.decode_image import FailedImage, decode_image, probe_size
from pipeline.decode.unsupported import unsupported_name
from tests.support.image_matrix import tiff_file

BOX = b"\0\0\0\x18ftyp"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (BOX + b"heic\0\0\0\0mif1heic", "HEIC"),
        (BOX + b"heix\0\0\0\0mif1", "HEIC"),
        (BOX + b"hevc\0\0\0\0msf1hevc", "HEIC"),
        (BOX + b"mif1\0\0\0\0mif1heic", "HEIC"),
        (BOX + b"mif1\0\0\0\0mif1jpeg", "HEIF"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (BOX + b"crx \0\0\0\1crx isom", "CR3"),
        (b"II*\0\x10\0\0\0CR\x02\0", "CR2"),
        (b"IIRO\x08\0\0\0", "ORF"),
        (b"MMOR\0\0\0\x08", "ORF"),
        (b"FUJIFILMCCD-RAW 0201", "RAF"),
        (b"8BPS\0\1", "PSD"),
        (b"8BPS\0\2", "PSD"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- a\n comment -->\n<svg:svg >", "SVG"),
        (b"<!DOCTYPE svg PUBLIC '-//W3C//DTD SVG 1.1//EN' 'x.dtd'>\n<svg>", "SVG"),
        ("<?xml version='1.0' encoding='UTF-16'?><svg/>".encode("utf-16"), "SVG"),
        (b"\xff\xd8\xff\xf7\0\x0b\x08" + bytes(8), "JPEG-LS"),
    ],
)
def test_an_image_that_is_not_decoded_is_named(data, name):
    result = decode_image(data, SizePolicy())
    assert isinstance(result, FailedImage)
    assert result.failure.code is ErrorCode.DECODE_UNSUPPORTED
    assert result.failure.message == f"{name} is not decoded"
    assert probe_size(data) is None


@pytest.mark.parametrize(
    "data", [b"<html><svg></svg></html>", b"<!DOCTYPE html><svg>", b"<", b"", b"\xff\xfe<", b"svg", b"<!--" * 2000]
)
def test_other_bytes_have_no_name(data):
    assert unsupported_name(data) is None


def preview(order, extra):
    """A TIFF of 32x32 gray pixels with more tags: code -> (struct code, values)."""
    tags = {254: ("I", (1,)), 256: ("H", (32,)), 257: ("H", (32,)), 258: ("H", (8,)), 259: ("H", (1,)),
            262: ("H", (1,)), 273: ("I", (8,)), 277: ("H", (1,)), 278: ("H", (32,)), 279: ("I", (1024,))}  # fmt: skip
    return tiff_file(order, tags | extra, bytes(1024))


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize(
    ("extra", "name"),
    [
        ({50706: ("B", (1, 4, 0, 0))}, "DNG"),
        ({271: ("B", tuple(b"NIKON CORPORATION\0")), 330: ("I", (8, 9))}, "NEF"),
        ({271: ("B", tuple(b"SONY\0")), 330: ("I", (8,))}, "ARW"),
        ({271: ("B", tuple(b"NIKON\0")), 262: ("H", (32803,))}, "NEF"),
        ({262: ("H", (32803,))}, "camera raw"),
        ({271: ("B", tuple(b"PENTAX\0")), 259: ("H", (65535,))}, "PEF"),
    ],
)
def test_the_preview_in_a_cameras_raw_file_is_not_taken_for_the_image(order, extra, name):
    result = decode_image(preview(order, extra), SizePolicy())
    assert isinstance(result, FailedImage)
    assert result.failure.code is ErrorCode.DECODE_UNSUPPORTED
    assert result.failure.message == f"{name} is not decoded"


def test_a_tiff_that_a_camera_wrote_is_decoded():
    assert not isinstance(
        decode_image(preview("II", {271: ("B", tuple(b"NIKON CORPORATION\0"))}), SizePolicy()), FailedImage
    )


def test_a_failure_has_words_where_pillow_has_none():
    box = b"\0\0\0\x0cjP  \r\n\x87\n" + struct.pack(">I4s4sI4s", 20, b"ftyp", b"jp2 ", 0, b"jp2 ") + b"\xff\xd9" * 20
    for data in (box, box[:12] + struct.pack(">I4s", 0, b"jp2c")):
        result = decode_image(data, SizePolicy())
        assert isinstance(result, FailedImage)
        assert result.failure.message.rstrip(": ") == result.failure.message
        assert len(result.failure.message.split()) > 3
