import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from pipeline.chunks.failures import ErrorCode
from pipeline.chunks.size_policy import SizePolicy
from pipeline.decode.decode_image import DecodedImage, decode_image, probe_size
from tests.support.image_matrix import chunk, png

SIZE = (32, 40)
ROWS = [bytes(3 * 32 * [y * 6]) for y in range(40)]
PLAIN = png(2, 8, ROWS, SIZE)


def pixels(data):
    result = decode_image(data, SizePolicy())
    assert isinstance(result, DecodedImage), result
    return result.pixels


def failure(data):
    result = decode_image(data, SizePolicy())
    assert not isinstance(result, DecodedImage)
    return result.failure


def broken(name, body):
    whole = chunk(name, body)
    return whole[:-1] + bytes([whole[-1] ^ 1])


def with_chunk(encoded, data=PLAIN):
    """The PNG with a chunk behind its header."""
    return data[:33] + encoded + data[33:]


ANCILLARY = {
    b"pHYs": 9, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"iCCP": 20, b"tIME": 7, b"sBIT": 3, b"bKGD": 6, b"hIST": 2,
    b"acTL": 8, b"fcTL": 26, b"fdAT": 4, b"eXIf": 8, b"tEXt": 5, b"zTXt": 5, b"iTXt": 9, b"oFFs": 9, b"cICP": 4,
}  # fmt: skip


@pytest.mark.parametrize("name", ANCILLARY)
def test_a_short_or_broken_ancillary_chunk_changes_no_pixel(name):
    for length in {0, 1, ANCILLARY[name] - 1, ANCILLARY[name]}:
        body = bytes(range(1, length + 1))
        assert np.array_equal(pixels(with_chunk(chunk(name, body))), pixels(PLAIN)), length
        assert np.array_equal(pixels(with_chunk(broken(name, body))), pixels(PLAIN)), length
        behind = PLAIN[:-12] + broken(name, body) + PLAIN[-12:]
        assert np.array_equal(pixels(behind), pixels(PLAIN)), length


@pytest.mark.parametrize(
    ("name", "head"),
    [
        (b"iCCP", b"name\0\0"),
        (b"zTXt", b"Comment\0\0"),
        (b"zTXt", b"Raw profile type exif\0\0"),
        (b"iTXt", b"Comment\0\1\0\0\0"),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0"),
    ],
)
def test_a_chunk_that_inflates_to_128_mib_is_left_out_in_little_memory(name, head):
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(128)) + packer.flush()
    data = with_chunk(chunk(name, head + packed) * 3)
    tracemalloc.start()
    assert np.array_equal(pixels(data), pixels(PLAIN))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24
    assert probe_size(data) == SIZE


def test_a_text_named_like_a_value_of_pillow_is_only_a_text():
    assert np.array_equal(pixels(with_chunk(chunk(b"tEXt", b"transparency\x00200"))), pixels(PLAIN))


def test_a_broken_critical_chunk_is_corrupt():
    for at in (20, PLAIN.find(b"IDAT") + 9):
        bad = bytearray(PLAIN)
        bad[at] ^= 1
        assert failure(bytes(bad)).code is ErrorCode.DECODE_CORRUPT
    paletted = png(3, 8, [bytes(32)] * 40, SIZE, before=((b"PLTE", bytes(6)),))
    at = paletted.find(b"PLTE") + 4
    assert failure(paletted[:at] + b"\1" + paletted[at + 1 :]).code is ErrorCode.DECODE_CORRUPT


def test_a_transparent_colour_counts_only_where_libpng_takes_it():
    row = [b"\x0a" * 16 + b"\xc8" * 16] * 40
    key, other = struct.pack(">H", 10), struct.pack(">H", 200)
    gray, plain = png(0, 8, row, SIZE, before=((b"tRNS", key),)), png(0, 8, row, SIZE)
    assert (pixels(gray)[:, :16] == 255).all() and (pixels(gray)[:, 16:] == 200).all()
    assert np.array_equal(pixels(with_chunk(chunk(b"tRNS", key) + chunk(b"tRNS", other), plain)), pixels(gray))
    for ignored in (
        with_chunk(broken(b"tRNS", key), plain),
        with_chunk(chunk(b"tRNS", key[:1]), plain),
        with_chunk(chunk(b"tRNS", key + b"\0"), plain),
        png(0, 8, row, SIZE, after=((b"tRNS", key),)),
    ):
        assert np.array_equal(pixels(ignored), pixels(plain))
    palette = (b"PLTE", bytes([10, 10, 10, 200, 200, 200]))
    indices = [b"\0" * 16 + b"\1" * 16] * 40
    assert (pixels(png(3, 8, indices, SIZE, before=(palette, (b"tRNS", b"\0"))))[:, :16] == 255).all()
    for before in ((palette, (b"tRNS", b"")), (palette, (b"tRNS", bytes(3))), ((b"tRNS", b"\0"), palette)):
        assert (pixels(png(3, 8, indices, SIZE, before=before))[:, :16] == 10).all(), before


@pytest.mark.parametrize("place", ["before", "after"])
def test_an_orientation_is_applied_unless_its_chunk_is_broken(place):
    exif = Image.Exif()
    exif[274] = 6
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    turned = png(2, 8, ROWS, SIZE, **{place: ((b"eXIf", body),)})
    assert pixels(turned).shape == (32, 40, 3)
    assert pixels(turned.replace(chunk(b"eXIf", body), broken(b"eXIf", body))).shape == (40, 32, 3)


def test_an_orientation_in_a_text_is_applied():
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert pixels(with_chunk(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))).shape == (32, 40, 3)


def test_an_animation_is_seen_as_its_image():
    frame = struct.pack(">IIIIIHHBB", 0, 16, 16, 8, 8, 1, 10, 0, 0)
    animated = with_chunk(chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", frame))
    assert np.array_equal(pixels(animated), pixels(PLAIN))


def test_a_png_of_apples_kind_is_refused_by_name():
    apples = PLAIN[:8] + chunk(b"CgBI", bytes(4)) + PLAIN[8:]
    assert failure(apples).code is ErrorCode.DECODE_UNSUPPORTED
    assert failure(apples).message == "PNG of Apple's CgBI kind is not decoded"


def test_the_size_of_a_png_that_pillow_refuses_was_not_known_under_the_first_rules():
    odd = with_chunk(chunk(b"pHYs", b"\0"))
    assert (probe_size(odd), probe_size(odd, pillow_only=True)) == (SIZE, None)
    assert probe_size(PLAIN) == probe_size(PLAIN, pillow_only=True) == SIZE
