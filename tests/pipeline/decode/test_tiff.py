import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from pipeline.chunks.failures import ErrorCode
from pipeline.chunks.size_policy import SizePolicy
from pipeline.decode.decode_image import DecodedImage, FailedImage, decode_image, probe_size
from tests.support.image_matrix import tiff_file

SIDE = 32


def tiff(order, photometric, samples, *, sample_format=1, compression=1, planar=1, extra=None):
    """A TIFF of one strip for each plane, of an array of shape (planes or 1, height, width or width * samples)."""
    code = {"II": "<", "MM": ">"}[order]
    bits, num = samples.dtype.itemsize * 8, samples.shape[2] // SIDE if planar == 1 else samples.shape[0]
    planes = [plane.astype(samples.dtype.newbyteorder(code)).tobytes() for plane in samples]
    planes = [zlib.compress(plane) if compression == 8 else plane for plane in planes]
    planes = [plane + bytes(len(plane) % 2) for plane in planes]
    offsets = tuple(itertools.accumulate((len(plane) for plane in planes), initial=8))[:-1]
    tags = {
        256: ("H", (SIDE,)), 257: ("H", (SIDE,)), 258: ("H", (bits,) * num), 259: ("H", (compression,)),
        262: ("H", (photometric,)), 273: ("I", offsets), 277: ("H", (num,)), 278: ("H", (SIDE,)),
        279: ("I", tuple(map(len, planes))), 284: ("H", (planar,)), 339: ("H", (sample_format,) * num),
    }  # fmt: skip
    return tiff_file(order, tags | (extra or {}), b"".join(planes))


def gray(values, dtype):
    return np.resize(np.array(values, dtype), (1, SIDE, SIDE))


def first_row(data):
    result = decode_image(data, SizePolicy())
    assert isinstance(result, DecodedImage), result
    assert (result.pixels[..., :1] == result.pixels).all()
    return result.pixels[0, :4, 0].tolist()


ORDERS, COMPRESSIONS = pytest.mark.parametrize("order", ["II", "MM"]), pytest.mark.parametrize("compression", [1, 8])


@ORDERS
@COMPRESSIONS
@pytest.mark.parametrize(
    ("photometric", "sample_format", "dtype", "values", "expected"),
    [
        (1, 1, "u2", [0, 257, 32896, 65535], [0, 1, 128, 255]),
        (0, 1, "u2", [0, 257, 32896, 65535], [255, 254, 127, 0]),
        (1, 1, "u4", [0, 2**31, 2**30, 2**32 - 1], [0, 128, 64, 255]),
        (0, 1, "u4", [0, 2**31, 2**30, 2**32 - 1], [255, 127, 191, 0]),
        (1, 1, "u4", [0, 257, 32896, 65535], [0, 1, 128, 255]),
        (1, 2, "i2", [-1000, 0, 500, 1000], [0, 128, 191, 255]),
        (1, 2, "i4", [-(2**30), 0, 2**29, 2**30], [0, 128, 191, 255]),
        (1, 3, "f4", [0, 0.25, 0.5, 1], [0, 64, 128, 255]),
        (0, 3, "f4", [0, 0.25, 0.5, 1], [255, 191, 127, 0]),
    ],
)
def test_numbers_of_any_kind_and_order_are_read_as_they_are(
    order, compression, photometric, sample_format, dtype, values, expected
):
    data = tiff(order, photometric, gray(values, dtype), sample_format=sample_format, compression=compression)
    assert first_row(data) == expected


@ORDERS
@pytest.mark.parametrize("halved", [(1, 1), (2, 1), (2, 2)])
def test_uncompressed_colours_at_half_resolution_are_seen(order, halved):
    luma = np.resize(np.arange(0, 256, 8, dtype=np.uint8), (SIDE, SIDE))
    across, down = halved
    blocks = luma.reshape(SIDE // down, down, SIDE // across, across).swapaxes(1, 2).reshape(-1, down * across)
    pixels = np.concatenate([blocks, np.full((len(blocks), 2), 128, np.uint8)], axis=1).tobytes()
    tags = {
        256: ("H", (SIDE,)), 257: ("H", (SIDE,)), 258: ("H", (8, 8, 8)), 259: ("H", (1,)), 262: ("H", (6,)),
        273: ("I", (8,)), 277: ("H", (3,)), 278: ("H", (SIDE,)), 279: ("I", (len(pixels),)), 530: ("H", halved),
    }  # fmt: skip
    assert first_row(tiff_file(order, tags, pixels)) == [0, 8, 16, 24]


@ORDERS
def test_a_plane_that_is_cut_is_corrupt(order):
    data = tiff(order, 2, np.resize(np.arange(65536, dtype=np.uint16), (3, SIDE, SIDE)), planar=2)
    assert isinstance(decode_image(data, SizePolicy()), DecodedImage)
    at = data.index(struct.pack({"II": "<", "MM": ">"}[order] + "III", 8, 8 + 2048, 8 + 4096))
    cut = data[: at + 8] + struct.pack({"II": "<", "MM": ">"}[order] + "I", len(data) - 100) + data[at + 12 :]
    result = decode_image(cut, SizePolicy())
    assert isinstance(result, FailedImage)
    assert result.failure.code is ErrorCode.DECODE_CORRUPT


def test_an_image_of_planes_is_turned_as_its_orientation_says():
    samples = np.resize(np.arange(65536, dtype=np.uint16), (3, SIDE, SIDE))
    plain = decode_image(tiff("II", 2, samples, planar=2), SizePolicy())
    turned = decode_image(tiff("II", 2, samples, planar=2, extra={274: ("H", (6,))}), SizePolicy())
    assert isinstance(plain, DecodedImage) and isinstance(turned, DecodedImage)
    assert np.array_equal(turned.pixels, np.rot90(plain.pixels, -1))


@pytest.mark.parametrize("planar", [1, 2])
def test_a_header_of_huge_sides_is_refused_before_any_pixel_is_read(planar):
    huge = {256: ("I", (2**31 - 1,)), 257: ("I", (2**30,))}
    data = tiff("II", 2, np.zeros((3, SIDE, SIDE), np.uint16), planar=2, extra=huge | {284: ("H", (planar,))})
    result = decode_image(data, SizePolicy())
    assert isinstance(result, FailedImage)
    assert result.failure.code is ErrorCode.IMAGE_TOO_LARGE


def test_layouts_that_are_not_decoded_are_named():
    floats = np.zeros((1, SIDE, 3 * SIDE), np.float32)
    big_endian_big = b"MM\0\x2b\0\x08\0\0" + struct.pack(">QQ", 16, 0) + bytes(8)
    for data, words in (
        (tiff("II", 2, floats, sample_format=3), "TIFF (3 x 32 bits, float, photometric 2, compression 1)"),
        (tiff("II", 1, gray([0, 1], np.uint64)), "TIFF (1 x 64 bits, unsigned, photometric 1, compression 1)"),
        (tiff("II", 1, gray([0, 1], np.uint8), compression=34712), "compression 34712"),
        (big_endian_big, "big-endian BigTIFF"),
    ):
        result = decode_image(data, SizePolicy())
        assert isinstance(result, FailedImage)
        assert result.failure.code is ErrorCode.DECODE_UNSUPPORTED
        assert words in result.failure.message
        assert result.failure.message.endswith(" is not decoded")


def test_settings_of_pillow_are_as_before():
    before = TiffImagePlugin.READ_LIBTIFF, dict(TiffImagePlugin.OPEN_INFO)
    decode_image(tiff("MM", 0, gray([0, 1], np.uint16)), SizePolicy())
    assert before == (TiffImagePlugin.READ_LIBTIFF, TiffImagePlugin.OPEN_INFO)


def test_the_size_of_a_tiff_that_pillow_refuses_was_not_known_under_the_first_rules():
    new = tiff("MM", 0, gray([0, 1], np.uint16))
    assert (probe_size(new), probe_size(new, pillow_only=True)) == ((SIDE, SIDE), None)


@pytest.mark.parametrize("order", ["II", "MM"])
def test_directories_that_lie_and_loop_end(order):
    data = bytearray(tiff(order, 1, gray([0, 1], np.uint8), extra={330: ("I", (8,) * 60), 271: ("B", (65,) * 9)}))
    rng = np.random.default_rng(0)
    head = len(data) - SIDE * SIDE - 8
    for _ in range(300):
        odd = data[:]
        for at in rng.integers(len(data) - head, len(data), 4):
            odd[at] = rng.integers(256)
        decode_image(bytes(odd), SizePolicy())


def test_gray_with_premultiplied_alpha_is_seen_on_white():
    samples = np.resize(np.array([100, 200, 0, 0], np.uint8), (1, SIDE, 2 * SIDE))
    data = tiff("II", 1, samples, extra={338: ("H", (1,))})
    result = decode_image(data, SizePolicy())
    assert isinstance(result, DecodedImage)
    assert np.abs(result.pixels[0, :2].astype(int) - [[155], [255]]).max() <= 1
    assert Image.fromarray(result.pixels).size == (SIDE, SIDE)
