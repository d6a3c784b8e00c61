"""A JPEG gives the same bytes, or the same failure, with libjpeg-turbo as with Pillow alone."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from pipeline.chunks.size_policy import Resize, SizePolicy
from pipeline.decode import decode_image as decode
from pipeline.decode.decode_image import DecodedImage, FailedImage, decode_image
from pipeline.decode.jpeg import decode_jpeg, read_header, reducing_factor

POLICY = SizePolicy()
ODD_SIZES = ((1, 1), (33, 47), (40, 36), (64, 64), (7, 90), (129, 65))


def pixels(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Smooth colours under grain: HWC uint8."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (max(1, height // 8), max(1, width // 8), 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return np.clip(smooth + rng.normal(0, 10, smooth.shape), 0, 255).astype(np.uint8)


def jpeg(width: int, height: int, seed: int = 0, mode: str = "RGB", **options) -> bytes:
    body = io.BytesIO()
    Image.fromarray(pixels(width, height, seed)).convert(mode).save(body, "JPEG", **options)
    return body.getvalue()


def turned(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


class Comparison:
    """Decodes each file in both ways; counts those of which the first needed no Pillow."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.num_quick = 0

    def __call__(self, data: bytes, policy: SizePolicy = POLICY) -> bool:
        """Compares them; returns whether the quick way was taken to the end."""
        before = self.num_quick
        with self._monkeypatch.context() as patch:
            patch.setattr(decode, "decode_jpeg", self._counted)
            found = decode_image(data, policy)
            patch.setattr(decode, "_HAS_SAME_JPEG_LIBRARY", False)
            expected = decode_image(data, policy)
        assert described(found) == described(expected)
        return self.num_quick > before

    def _counted(self, *args):
        image = decode_jpeg(*args)
        self.num_quick += image is not None
        return image


def described(image: DecodedImage | FailedImage) -> tuple:
    if isinstance(image, FailedImage):
        return (image,)
    sizes = (image.width, image.height, image.net_width, image.net_height, image.scale, image.pixels.shape)
    return (*sizes, image.pixels.dtype, image.pixels.tobytes())


@pytest.fixture
def compare(monkeypatch) -> Comparison:
    return Comparison(monkeypatch)


def plain_files() -> Iterator[bytes]:
    for number, (width, height) in enumerate(ODD_SIZES):
        for quality in (1, 50, 85, 100):
            for subsampling in ("4:4:4", "4:2:2", "4:2:0", "4:1:1"):
                for progressive in (False, True):
                    options = {"quality": quality, "subsampling": subsampling, "progressive": progressive}
                    yield jpeg(width, height, number, **options)
        for subsampling in ("440", "411"):
            yield simplejpeg.encode_jpeg(pixels(width, height, number), colorsubsampling=subsampling)
        yield jpeg(width, height, number, "L")
        yield jpeg(width, height, number, "L", progressive=True)
        yield jpeg(width, height, number, optimize=True, comment="a comment")
        yield jpeg(width, height, number, restart_marker_blocks=3)
        yield jpeg(width, height, number, restart_marker_rows=1, progressive=True)


def test_every_plain_jpeg_is_decoded_without_pillow_to_its_very_bytes(compare):
    count = sum(compare(data) for data in plain_files())
    assert count == len(ODD_SIZES) * (4 * 4 * 2 + 7)


@pytest.mark.parametrize("orientation", range(10))
def test_a_jpeg_with_exif_is_turned_as_it_says(compare, orientation):
    assert compare(jpeg(50, 37, exif=turned(orientation), icc_profile=b"a profile"))


def test_an_orientation_that_stands_in_xmp_alone_counts(compare):
    data = jpeg(50, 37, xmp=b'<x:xmpmeta xmlns:tiff="t" tiff:Orientation="6"/>')
    assert compare(data)
    assert decode_image(data, POLICY).width == 37


@pytest.mark.parametrize(
    "policy",
    [
        SizePolicy(preprocess="imagenet"),
        SizePolicy(max_image_pixels=1024),
        SizePolicy(small_images="reject"),
        SizePolicy(max_image_pixels=1024, large_images="reject"),
    ],
)
def test_sizes_are_changed_and_refused_alike(compare, policy):
    for width, height in ODD_SIZES:
        compare(jpeg(width, height), policy)
        compare(jpeg(width, height, exif=turned(6)), policy)


@pytest.mark.parametrize(
    ("mode", "options"), [("CMYK", {}), ("CMYK", {"progressive": True}), ("RGB", {"keep_rgb": True})]
)
def test_what_adobe_s_marker_speaks_of_is_left_to_pillow(compare, mode, options):
    data = jpeg(40, 36, mode=mode, **options)
    assert read_header(data) is None
    assert not compare(data)


def test_adobe_s_marker_before_three_components_leaves_them_to_pillow(compare):
    plain = jpeg(40, 36)
    for transform in (0, 1):
        marker = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform])
        assert not compare(plain[:2] + marker + plain[2:])


def test_other_frames_and_precisions_are_left_to_pillow(compare):
    plain = jpeg(40, 36)
    frame = plain.index(b"\xff\xc0")
    others = [plain[: frame + 1] + bytes([kind]) + plain[frame + 2 :] for kind in (0xC3, 0xC5, 0xC9, 0xCA, 0xCB)]
    others.append(plain[: frame + 4] + b"\x0c" + plain[frame + 5 :])  # 12 bits
    others.append(plain[: frame + 5] + b"\0\0" + plain[frame + 7 :])  # no height
    others.append(plain[: frame + 9] + b"\x02" + plain[frame + 10 :])  # two components
    others.append(plain[:frame] + plain[frame : frame + 19] + plain[frame:])  # two frames
    for data in others:
        assert read_header(data) is None
        compare(data)


def test_a_jpeg_of_which_something_is_missing_is_judged_by_pillow(compare):
    for options in ({}, {"progressive": True}, {"restart_marker_blocks": 2}):
        whole = jpeg(64, 64, 3, **options)
        cuts = [whole[:end] for end in range(3, len(whole), 41)]
        assert not any(compare(cut) for cut in [*cuts, whole[:-2]])
        for cut in cuts:
            compare(cut + b"\xff\xd9")


def test_a_progressive_jpeg_that_ends_after_some_of_its_scans_is_as_smooth_as_pillow_s(compare):
    whole = jpeg(96, 80, 5, progressive=True)
    scans = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xda"]
    assert len(scans) > 5
    assert [compare(whole[:scan] + b"\xff\xd9") for scan in scans[1:]].count(True) > 0


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:4:4", "restart_marker_blocks": 2}])
def test_a_jpeg_with_wrong_bytes_is_whatever_pillow_makes_of_it(compare, options):
    whole = jpeg(48, 40, 7, **options)
    rng = np.random.default_rng(11)
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(2, len(data))] = rng.integers(256)
        compare(bytes(data))
        at = int(rng.integers(2, len(whole)))
        compare(whole[:at] + rng.bytes(int(rng.integers(1, 4))) + whole[at:])
        compare(whole[:at] + whole[at + int(rng.integers(1, 9)) :])


def test_bytes_behind_the_end_and_between_segments_change_nothing(compare):
    plain = jpeg(40, 36)
    assert compare(plain + b"behind the end")
    broken = [plain[:20] + between + plain[20:] for between in (b"\xff", b"junk")]
    for data in (*broken, plain.replace(b"\xff\xdb", b"\0\xdb", 1)):
        assert read_header(data) is None
        compare(data)


def test_real_and_odd_jpegs_are_what_pillow_makes_of_them(compare, test_data: Path):
    paths = [path for path in sorted(test_data.rglob("*")) if path.is_file() and begins_as_jpeg(path)]
    photos = [path for path in paths if "photos" in path.parts]
    odd = [path for path in paths if "photos" not in path.parts]
    for path in odd:
        compare(path.read_bytes())
    assert sum(compare(path.read_bytes()) for path in photos[::20]) == len(photos[::20])
    assert len(odd) > 50


def begins_as_jpeg(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(3) == b"\xff\xd8\xff"


def test_the_head_of_a_buffer_becomes_the_image_where_it_has_room():
    data = jpeg(40, 36)
    header = read_header(data)
    room = np.zeros(3 * 40 * 36 + 5, np.uint8)
    image = decode_jpeg(data, header, room)
    assert np.shares_memory(image, room)
    assert not room[-5:].any()
    np.testing.assert_array_equal(image, decode_jpeg(data, header))
    elsewhere = decode_jpeg(data, header, room[6:])
    assert not np.shares_memory(elsewhere, room)
    np.testing.assert_array_equal(elsewhere, image)


@pytest.mark.parametrize(
    ("change", "is_bare"),
    [
        (lambda data: data, True),
        (lambda data: data[:2] + b"\xff\xe1\0\x04ab" + data[2:], False),
        (lambda data: data[:2] + b"\xff\xe0\0\x08JFIF\0\x01" + data[2:], False),  # Pillow finds it too short
        (lambda data: data[:2] + b"\xff\xe0\0\x0bJFXX\0\x10abc" + data[2:], False),
        (lambda data: data[:2] + b"\xff\xfe\0\x04ab" + data[2:], True),
    ],
)
def test_a_header_is_bare_if_nothing_in_it_could_turn_the_image(change: Callable[[bytes], bytes], is_bare):
    header = read_header(change(jpeg(40, 36)))
    assert (header.width, header.height, header.is_bare) == (40, 36, is_bare)


def smooth(width, height, seed):
    """A photo-like image: structures of eight pixels and more."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    body = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(body, "JPEG", quality=92)
    return body.getvalue()


def at_shorter(side, jpeg_decoding="whole"):
    return SizePolicy(resize=Resize(to="shorter", width=side, height=side), jpeg_decoding=jpeg_decoding)


@pytest.mark.parametrize("side", [32, 60, 100, 150, 199, 200])
def test_pixels_of_reduced_decoding_differ_by_less_than_four_levels_in_the_mean(side):
    for seed in range(5):
        data = smooth(401 + seed, 533, seed)
        exact, reduced = (decode_image(data, at_shorter(side, how)) for how in ("whole", "reduced"))
        assert (reduced.net_width, reduced.net_height) == (exact.net_width, exact.net_height)
        assert reduced.scale == exact.scale
        gap = np.abs(exact.pixels.astype(int) - reduced.pixels)
        assert 0 < gap.mean() < 4
        assert np.percentile(gap, 99) < 25


@pytest.mark.parametrize("side", [201, 300, 401, 600])
def test_a_jpeg_that_is_resized_to_more_than_half_is_decoded_whole(side):
    data = smooth(401, 533, 1)
    np.testing.assert_array_equal(
        decode_image(data, at_shorter(side, "reduced")).pixels, decode_image(data, at_shorter(side)).pixels
    )


def test_a_turned_jpeg_is_reduced_and_turned():
    exif = Image.Exif()
    exif[274] = 6
    body = io.BytesIO()
    Image.open(io.BytesIO(smooth(400, 560, 2))).save(body, "JPEG", quality=92, exif=exif)
    exact, reduced = (decode_image(body.getvalue(), at_shorter(100, how)) for how in ("whole", "reduced"))
    assert reduced.pixels.shape == exact.pixels.shape == (100, 140, 3)
    assert 0 < np.abs(exact.pixels.astype(int) - reduced.pixels).mean() < 4


def test_the_factor_keeps_both_sides_at_least_as_large_as_wanted():
    assert [reducing_factor((800, 400), size) for size in [(100, 50), (101, 50), (200, 100), (400, 201), (900, 9)]] == [
        8, 4, 4, 1, 1,
    ]  # fmt: skip
    assert reducing_factor((401, 533), (201, 267)) == 1
