import io
import struct

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from pipeline.chunks.failures import ErrorCode
from pipeline.chunks.size_policy import SizePolicy
from pipeline.decode.decode_image import DecodedImage, decode_image, probe_size


def jpeg(mode="RGB", **options):
    y, x = np.mgrid[:40, :48]
    image = Image.fromarray(np.stack([x * 5, y * 6, x + y], axis=2).astype(np.uint8)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def segment(marker, body):
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


PLAIN = jpeg()
BARE = PLAIN[:2] + PLAIN[20:]  # without its JFIF
STARTS = [
    (0xE0, b"JFIF\0\1\1\1\0\x48\0\x48\0\0"),
    (0xE0, b"JFXX\0\x10"),
    (0xE1, b"Exif\0\0II*\0\x08\0\0\0\1\0"),
    (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"),
    (0xE2, b"ICC_PROFILE\0\1\1profile"),
    (0xE2, b"MPF\0II*\0\x08\0\0\0"),
    (0xE2, b"FPXR\0"),
    (0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x10\0\x48\0\0\0\1\0\1\0\x48\0\0\0\1\0\1"),
    (0xEE, b"Adobe\0\x64\0\0\0\0"),
    (0xFE, b"a comment"),
]


@pytest.mark.parametrize(("marker", "whole"), STARTS)
def test_a_segment_that_is_cut_anywhere_is_passed_over_as_by_libjpeg_turbo(marker, whole):
    for base in (PLAIN, BARE):
        for length in range(len(whole)):
            data = base[:2] + segment(marker, whole[:length]) + base[2:]
            result = decode_image(data, SizePolicy())
            assert isinstance(result, DecodedImage), (length, result)
            assert np.array_equal(result.pixels, imagecodecs.jpeg8_decode(data)), length
            assert probe_size(data) == (48, 40)


def test_cut_segments_beside_an_orientation_leave_the_image_turned():
    exif = Image.Exif()
    exif[274] = 6
    data = jpeg(exif=exif)
    data = data[:2] + segment(0xE2, b"ICC_PROFILE\0\1") + segment(0xE0, b"JFIF\0") + data[2:]
    result = decode_image(data, SizePolicy())
    assert isinstance(result, DecodedImage)
    assert (result.width, result.height) == (40, 48)


def test_a_cut_adobe_segment_leaves_cmyk_as_libjpeg_turbo_reads_it():
    data = jpeg("CMYK")
    at = data.index(b"\xff\xee")
    end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
    without, cut = data[:at] + data[end:], data[:at] + segment(0xEE, b"Adobe\0") + data[end:]
    first, second = decode_image(without, SizePolicy()), decode_image(cut, SizePolicy())
    assert isinstance(first, DecodedImage) and isinstance(second, DecodedImage)
    assert np.array_equal(first.pixels, second.pixels)


@pytest.mark.parametrize(
    ("marker", "bits", "components", "name"),
    [
        (0xC1, 12, 3, "JPEG of 12 bits per sample"),
        (0xC3, 16, 1, "JPEG of 16 bits per sample"),
        (0xC0, 8, 2, "JPEG of 2 components"),
        (0xC5, 8, 3, "hierarchical JPEG"),
    ],
)
def test_a_frame_that_is_not_decoded_is_named(marker, bits, components, name):
    frame = struct.pack(">BHHB", bits, 40, 48, components) + bytes(3 * components)
    data = b"\xff\xd8" + segment(0xE0, b"JFIF\0") + segment(marker, frame) + segment(0xDA, bytes(6)) + b"\xff\xd9"
    result = decode_image(data, SizePolicy())
    assert not isinstance(result, DecodedImage)
    assert result.failure.code is ErrorCode.DECODE_UNSUPPORTED
    assert result.failure.message == f"{name} is not decoded"
