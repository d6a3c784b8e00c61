"""Images made here, or by others: `test_data` names codec projects' own files, many of them invalid on purpose."""

import io
import re
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from pipeline.chunks.failures import ErrorCode
from pipeline.chunks.size_policy import Resize, SizePolicy
from pipeline.decode.decode_image import DecodedImage, FailedImage, decode_image, probe_size
from tests.support.planted_bugs import planted_bug

POLICY = SizePolicy()
WIDTH, HEIGHT = 48, 36


def picture(width=WIDTH, height=HEIGHT):
    """An RGB image without symmetry, smooth here and noisy there."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=-1).astype(np.uint8)
    noise = np.random.default_rng(7).integers(0, 256, (height // 2, width // 3, 3), np.uint8)
    pixels[: height // 2, : width // 3] = noise
    return Image.fromarray(pixels)


def encode(image, image_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def decoded(data, policy=POLICY):
    result = decode_image(data, policy)
    assert isinstance(result, DecodedImage), result
    assert result.pixels.dtype == np.uint8
    assert result.pixels.flags.c_contiguous
    assert result.pixels.shape == (result.net_height, result.net_width, 3)
    return result


def failed(data, policy=POLICY):
    result = decode_image(data, policy)
    assert isinstance(result, FailedImage), result
    message = result.failure.message
    assert len(message) <= 200
    assert message.isprintable()
    assert not re.search(r" at 0x[0-9a-f]", message)
    assert decode_image(bytes(bytearray(data)), policy) == result
    return result


def pillow(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


RGB = picture()
FORMATS = {
    "jpeg": encode(RGB, "JPEG"),
    "jpeg-progressive": encode(RGB, "JPEG", progressive=True),
    "jpeg-gray": encode(RGB.convert("L"), "JPEG"),
    "mpo": encode(RGB, "MPO", save_all=True, append_images=[RGB.rotate(180)]),
    "png": encode(RGB, "PNG"),
    "webp": encode(RGB, "WEBP"),
    "webp-lossless": encode(RGB, "WEBP", lossless=True),
    "gif": encode(RGB.quantize(64), "GIF"),
    "bmp": encode(RGB, "BMP"),
    "tiff": encode(RGB, "TIFF"),
    "tiff-lzw": encode(RGB, "TIFF", compression="tiff_lzw"),
    "tiff-jpeg": encode(RGB, "TIFF", compression="jpeg"),
    "avif": encode(RGB, "AVIF"),
    "jp2": encode(RGB, "JPEG2000"),
    "j2k": encode(RGB, "JPEG2000", no_jp2=True),
    "jp2-tiles": encode(RGB, "JPEG2000", tile_size=(32, 32)),
    "ppm": encode(RGB, "PPM"),
    "pgm": encode(RGB.convert("L"), "PPM"),
    "pbm": encode(RGB.convert("1"), "PPM"),
    "ico": encode(RGB, "ICO", sizes=[(WIDTH, HEIGHT)]),
}
LOSSLESS = ("png", "webp-lossless", "bmp", "tiff", "tiff-lzw", "jp2", "j2k", "jp2-tiles", "ppm", "ico")


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_gives_the_pixels_that_pillow_gives(name):
    result = decoded(FORMATS[name])
    assert np.array_equal(result.pixels, pillow(FORMATS[name]))
    assert (result.width, result.height, result.scale) == (WIDTH, HEIGHT, 1.0)
    assert probe_size(FORMATS[name]) == (WIDTH, HEIGHT)
    if name in LOSSLESS:
        assert np.array_equal(result.pixels, np.asarray(RGB))


@pytest.mark.parametrize("name", FORMATS)
def test_a_cut_file_fails_and_is_never_half_grey(name):
    data = FORMATS[name]
    whole = decoded(data).pixels
    for cut in range(1, len(data), 1 + len(data) // 250):
        result = decode_image(data[:cut], POLICY)
        if isinstance(result, DecodedImage):  # only what comes behind the pixels is missing
            assert np.array_equal(result.pixels, whole), cut
        else:
            assert result.failure.code in (ErrorCode.DECODE_CORRUPT, ErrorCode.DECODE_UNSUPPORTED), cut


def test_a_jpeg_2000_that_is_cut_between_tiles_is_corrupt():
    data = FORMATS["jp2-tiles"]
    tile = data.rfind(b"\xff\x90\x00\x0a")  # start of the last tile part
    assert failed(data[:tile]).failure.code == ErrorCode.DECODE_CORRUPT


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(image_format, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    data = encode(RGB, image_format, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    result = decoded(data)
    assert np.array_equal(result.pixels, np.asarray(upright))
    assert (result.width, result.height) == upright.size
    assert set(probe_size(data)) == {WIDTH, HEIGHT}


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0garbage!",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0",  # orientation 99
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0six\0\0\0\0\0",  # orientation "six"
    ],
)
def test_broken_exif_means_upright(exif):
    assert np.array_equal(decoded(encode(RGB, "JPEG", exif=exif)).pixels, pillow(FORMATS["jpeg"]))


def test_the_size_of_a_refused_image_is_the_turned_one():
    exif = Image.Exif()
    exif[274] = 6
    result = failed(encode(RGB, "JPEG", exif=exif), SizePolicy(max_image_pixels=1024, large_images="reject"))
    assert result.failure.code == ErrorCode.IMAGE_TOO_LARGE
    assert (result.width, result.height) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_an_animation_or_a_document_the_first_image_is_taken(image_format):
    first, second = RGB, ImageOps.invert(RGB)
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = encode(first, image_format, save_all=True, append_images=[second], **options)
    alone = encode(first, image_format, **options)
    assert np.abs(decoded(data).pixels.astype(int) - decoded(alone).pixels).mean() < 8


def test_an_icc_profile_changes_nothing():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    with_profile, without = encode(RGB, "PNG", icc_profile=profile), encode(RGB, "PNG")
    assert len(with_profile) > len(without)
    assert np.array_equal(decoded(with_profile).pixels, decoded(without).pixels)


# Modes. Each image is one colour, or halves of two; 32 pixels a side, so that no policy touches it.


def halves(mode, left, right):
    image = Image.new(mode, (32, 32), left)
    image.paste(right, (16, 0, 32, 32))
    return image


def two_colours(data):
    pixels = decoded(data).pixels
    assert (pixels[:, :16] == pixels[0, 0]).all()
    assert (pixels[:, 16:] == pixels[0, 31]).all()
    return pixels[0, 0].tolist(), pixels[0, 31].tolist()


@pytest.mark.parametrize(
    ("image", "left", "right"),
    [
        (halves("1", 0, 1), [0, 0, 0], [255, 255, 255]),
        (halves("L", 10, 200), [10, 10, 10], [200, 200, 200]),
        (halves("LA", (10, 255), (10, 0)), [10, 10, 10], [255, 255, 255]),
        (halves("RGBA", (10, 20, 30, 255), (10, 20, 30, 0)), [10, 20, 30], [255, 255, 255]),
        (halves("RGBA", (10, 20, 30, 128), (0, 0, 0, 51)), [132, 137, 142], [204, 204, 204]),
    ],
)
def test_transparent_pixels_are_seen_on_white(image, left, right):
    assert two_colours(encode(image, "PNG")) == (left, right)


def test_a_palette_with_alpha_is_seen_on_white():
    image = halves("P", 0, 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    assert two_colours(encode(image, "PNG")) == ([10, 20, 30], [40, 50, 60])
    assert two_colours(encode(image, "PNG", transparency=1)) == ([10, 20, 30], [255, 255, 255])
    assert two_colours(encode(image, "PNG", transparency=b"\x33\x80")) == ([206, 208, 210], [147, 152, 157])
    assert two_colours(encode(image, "GIF", transparency=0)) == ([255, 255, 255], [40, 50, 60])


def png(color_type, bits, rows, *chunks):
    """A PNG that Pillow cannot write: rows are packed samples."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 32, 32, bits, color_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", header), *(chunk(*c) for c in chunks), chunk(b"IDAT", body), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("data", "left", "right"),
    [
        (png(0, 8, [b"\x0a" * 16 + b"\xc8" * 16] * 32, (b"tRNS", b"\0\x0a")), [255] * 3, [200] * 3),
        (png(0, 4, [b"\x33" * 8 + b"\xcc" * 8] * 32, (b"tRNS", b"\0\x03")), [255] * 3, [204] * 3),
        (png(0, 2, [b"\x55" * 4 + b"\xaa" * 4] * 32, (b"tRNS", b"\0\x01")), [255] * 3, [170] * 3),
        (png(0, 16, [b"\x12\x34" * 16 + b"\x80\x80" * 16] * 32, (b"tRNS", b"\x12\x34")), [255] * 3, [128] * 3),
        (
            png(2, 8, [b"\x01\x02\x03" * 16 + b"\x04\x05\x06" * 16] * 32, (b"tRNS", b"\0\1\0\2\0\3")),
            [255] * 3,
            [4, 5, 6],
        ),
        (
            png(2, 16, [b"\x12\x34\x00\x00\x00\x00" * 16 + b"\x34\x12" * 48] * 32, (b"tRNS", b"\x12\x34\0\0\0\0")),
            [255] * 3,
            [52] * 3,
        ),
    ],
)
def test_a_key_colour_is_seen_as_white_at_every_depth(data, left, right):
    assert two_colours(data) == (left, right)


def test_sixteen_bits_are_scaled_and_not_clipped():
    values = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    expected = np.repeat(np.round(values / 257).astype(np.uint8)[..., None], 3, axis=2)
    for image_format in ("PNG", "TIFF", "JPEG2000", "PPM"):
        result = decoded(encode(Image.fromarray(values), image_format))
        assert np.array_equal(result.pixels, expected), image_format


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([-5, 5], np.int32), [0, 255]),
        (np.array([0, 65535], np.int32), [0, 255]),
        (np.array([0, 1], np.float32), [0, 255]),
        (np.array([0, 128], np.float32), [0, 128]),
        (np.array([float("nan"), 1], np.float32), [0, 255]),
    ],
)
def test_wide_gray_values_are_scaled(values, expected):
    image = Image.fromarray(np.repeat(np.tile(values, (32, 1)), 16, axis=1))
    left, right = two_colours(encode(image, "TIFF"))
    assert [left, right] == [[value] * 3 for value in expected]


def test_printers_and_video_colours_become_rgb():
    assert two_colours(encode(halves("CMYK", (0, 0, 0, 0), (0, 255, 255, 0)), "TIFF")) == ([255] * 3, [255, 0, 0])
    cmyk = decoded(encode(RGB.convert("CMYK"), "JPEG", quality=95)).pixels
    assert np.abs(cmyk.astype(int) - np.asarray(RGB)).mean() < 25
    assert two_colours(encode(halves("YCbCr", (90, 128, 128), (0, 128, 128)), "TIFF")) == ([90] * 3, [0] * 3)


def test_lab_becomes_rgb():
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(halves("RGB", (200, 30, 60), (255, 255, 255)), srgb, lab, outputMode="LAB")
    left, right = two_colours(encode(image, "TIFF"))
    assert np.abs(np.array(left) - (200, 30, 60)).max() <= 4
    assert np.abs(np.array(right) - 255).max() <= 2


# Sizes.


def test_a_small_image_is_enlarged():
    small = picture(12, 8)
    result = decoded(encode(small, "PNG"))
    assert (result.width, result.height, result.net_width, result.net_height, result.scale) == (12, 8, 48, 32, 4.0)
    assert np.array_equal(result.pixels, np.asarray(small.resize((48, 32), Image.Resampling.BICUBIC)))


def test_a_large_image_is_reduced_and_turned():
    large = picture(160, 120)
    exif = Image.Exif()
    exif[274] = 6
    result = decoded(encode(large, "PNG", exif=exif), SizePolicy(max_image_pixels=80 * 60))
    assert (result.width, result.height, result.net_width, result.net_height, result.scale) == (120, 160, 60, 80, 0.5)
    reduced = large.resize((80, 60), Image.Resampling.BICUBIC)
    assert np.array_equal(result.pixels, np.asarray(reduced.transpose(Image.Transpose.ROTATE_270)))


def test_a_rejected_image_keeps_its_size():
    policy = SizePolicy(max_image_pixels=2000, small_images="reject", large_images="reject")
    small, large = failed(encode(picture(31, 50), "PNG"), policy), failed(encode(picture(50, 50), "PNG"), policy)
    assert (small.failure.code, small.width, small.height) == (ErrorCode.IMAGE_TOO_SMALL, 31, 50)
    assert (large.failure.code, large.width, large.height) == (ErrorCode.IMAGE_TOO_LARGE, 50, 50)


def test_a_bomb_is_refused_by_its_header():
    data = png(0, 8, [])
    bomb = data[:16] + struct.pack(">II", 100_000, 200_000) + data[24:29]
    bomb += struct.pack(">I", zlib.crc32(bomb[12:29])) + data[33:]
    result = failed(bomb)
    assert (result.failure.code, result.width, result.height) == (ErrorCode.IMAGE_TOO_LARGE, 100_000, 200_000)
    assert probe_size(bomb) == (100_000, 200_000)


def test_a_side_that_no_column_can_hold_is_left_out():
    bmp = bytearray(encode(RGB, "BMP"))
    bmp[18:22] = b"\xff\xff\xff\xff"
    result = failed(bytes(bmp))
    assert (result.failure.code, result.width, result.height) == (ErrorCode.IMAGE_TOO_LARGE, None, None)


# Failures.


def test_no_bytes_are_an_empty_image():
    assert failed(b"").failure.code == ErrorCode.DECODE_EMPTY


@pytest.mark.parametrize(
    "data",
    [b"\0", b"<html></html>", b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", b"8BPS\0\1", b"P7 332\n", b"Pictures", b"GIF90a"],
)
def test_what_begins_as_no_image_is_unsupported(data):
    assert failed(data).failure.code == ErrorCode.DECODE_UNSUPPORTED
    assert probe_size(data) is None


@pytest.mark.parametrize("magic", [b"\xff\xd8\xff", b"\x89PNG", b"BM", b"GIF89a", b"II*\0", b"P6 ", b"\0\0\1\0\1\0"])
def test_what_begins_as_an_image_but_is_none_is_corrupt(magic):
    assert failed(magic).failure.code == ErrorCode.DECODE_CORRUPT
    assert failed(magic + b"0123456789" * 50).failure.code == ErrorCode.DECODE_CORRUPT


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(FORMATS)),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_no_bytes_make_it_raise_or_warn(name, changes):
    data = bytearray(FORMATS[name])
    for position, value in changes:
        data[position % min(len(data), 400)] = value
    first, second = decode_image(bytes(data), POLICY), decode_image(bytes(data), POLICY)
    assert type(first) is type(second)
    if isinstance(first, FailedImage):
        assert first == second
    probe_size(bytes(data))


# Files of others.

SUPPORTED = {"JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO"}


def pillow_size(data):
    """The upright size if Pillow can read the image at all and it is of a format that counts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data))
            if image.format not in SUPPORTED:
                return None
            image.load()
        except Exception:
            return None
        try:
            return ImageOps.exif_transpose(image).size
        except Exception:
            return image.size


# Whole images over whose text, profile or animation Pillow fails.
WHOLE = {"chunk_no_fctl.png", "png_decompression_dos.png", "unknown_compression_method.png"}


def test_every_odd_file_decodes_where_pillow_can_and_fails_where_it_cannot(test_data):
    disagreements = []
    num_decoded = 0
    for path in sorted((test_data / "odd").rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        result = decode_image(data, POLICY)
        size = (result.width, result.height) if isinstance(result, DecodedImage) else None
        num_decoded += size is not None
        if path.name in WHOLE:
            assert (size is not None, pillow_size(data)) == (True, None), path.name
        elif size != pillow_size(data):
            disagreements.append((path.name, size, pillow_size(data), result))
        probe = probe_size(data)
        # One icon says another size in its directory than in its image.
        if size is not None and set(probe or ()) != set(size) and path.suffix != ".ico":
            disagreements.append((path.name, size, probe))
    assert disagreements == []
    assert num_decoded > 900


def test_all_orientations_of_one_photo_look_alike(test_data):
    for shape in ("Landscape", "Portrait"):
        paths = [test_data / "odd" / "exif-orientation" / f"{shape}_{n}.jpg" for n in range(1, 9)]
        upright, *others = (decoded(path.read_bytes()).pixels.astype(int) for path in paths)
        for other in others:
            assert other.shape == upright.shape
            assert np.abs(other - upright).mean() < 6  # each was compressed by itself


def test_twelve_bits_fill_the_range(test_data):
    data = (test_data / "odd/pillow/Tests/images/12bit.cropped.tif").read_bytes()
    values = np.asarray(Image.open(io.BytesIO(data)))
    assert np.array_equal(decoded(data).pixels[..., 0], np.round(values * 255 / 4095))


def test_photos_are_exactly_pillows(test_data):
    paths = sorted((test_data / "photos/clothing/validation").rglob("*.jpg"))[:40]
    assert paths
    for path in paths:
        data = path.read_bytes()
        assert np.array_equal(decoded(data).pixels, pillow(data))
        assert probe_size(data) == Image.open(io.BytesIO(data)).size


# The published protocol.


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
@pytest.mark.parametrize(
    ("width", "height"), [(300, 270), (271, 333), (500, 375), (60, 90), (248, 248), (224, 224), (224, 300)]
)
def test_the_published_protocol_resizes_the_shorter_side_and_cuts_out_the_centre(width, height, image_format):
    """As torchvision's Resize(248, bicubic) and CenterCrop(224) do on a Pillow image."""
    data = encode(picture(width, height), image_format)
    image = Image.open(io.BytesIO(data)).convert("RGB")
    found = decoded(data, SizePolicy(preprocess="imagenet"))
    short = min(width, height)
    size = (248, int(248 * height / short)) if width == short else (int(248 * width / short), 248)
    resized = image.resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - 224) / 2.0), round((size[1] - 224) / 2.0)
    assert np.array_equal(found.pixels, np.asarray(resized.crop((left, top, left + 224, top + 224))))
    assert (found.width, found.height, found.scale) == (width, height, 248 / short)


@pytest.mark.parametrize("name", ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"])
@pytest.mark.parametrize(("image_format", "orientation"), [("PNG", 1), ("JPEG", 1), ("JPEG", 6)])
def test_any_rule_resizes_as_pillow_does_by_the_filter_it_names(name, image_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = picture(300, 261)
    data = encode(image, image_format, exif=exif)
    found = decoded(data, SizePolicy(resize=Resize(to="stretch", width=96, height=64, filter=name)))
    whole = Image.fromarray(decoded(data).pixels)
    if orientation == 6:
        # The resizing comes before the turn, so the sides are resized in the other order.
        before = whole.transpose(Image.Transpose.ROTATE_90).resize((64, 96), Image.Resampling[name.upper()])
        expected = before.transpose(Image.Transpose.ROTATE_270)
    else:
        expected = whole.resize((96, 64), Image.Resampling[name.upper()])
    assert np.array_equal(found.pixels, np.asarray(expected))
    assert (found.net_width, found.net_height) == (96, 64)


def test_a_square_of_224_has_the_pixels_of_the_published_protocol():
    data = encode(picture(333, 271), "JPEG")
    square = Resize(to="shorter", width=248, height=248, crop=(224, 224))
    published = decoded(data, SizePolicy(preprocess="imagenet"))
    assert np.array_equal(decoded(data, SizePolicy(resize=square)).pixels, published.pixels)


def test_the_published_protocol_crops_what_stands_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = picture(300, 261)
    turned = decoded(encode(image, "PNG", exif=exif), SizePolicy(preprocess="imagenet"))
    upright = decoded(encode(image.transpose(Image.Transpose.ROTATE_270), "PNG"), SizePolicy(preprocess="imagenet"))
    assert (turned.width, turned.height) == (261, 300)
    # Columns and rows are resized in the other order, each rounded and clipped; a crop one row off differs by ten.
    assert np.abs(turned.pixels.astype(int) - upright.pixels).mean() < 0.5


def test_a_bug_in_a_decoder_is_a_failed_image_whose_message_names_it(monkeypatch):
    data = FORMATS["png"]
    assert failed(data[:-60]).failure.message.startswith("PNG: ")
    monkeypatch.setattr("pipeline.decode.decode_image.to_rgb", planted_bug("pipeline/decode/to_rgb.py"))
    found = failed(data)
    assert found.failure.code is ErrorCode.DECODE_CORRUPT
    assert found.failure.message == "bug at pipeline/decode/to_rgb.py:41: AttributeError: planted bug 4711 (PNG)"
    assert (found.width, found.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("error", ["TypeError", "AssertionError"])
def test_what_pillow_raises_over_bad_bytes_is_no_bug_whatever_its_type(monkeypatch, error):
    raising = planted_bug("../site-packages/PIL/PngImagePlugin.py", error=error)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", raising)
    assert failed(FORMATS["png"]).failure.message == f"PNG: {error}: planted bug 4711"
