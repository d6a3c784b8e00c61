"""Thumbnails show the pixels that the network sees, and do not change the size of a chunk."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.chunks.sample import rank
from pipeline.decode.thumbnail import ROOM_BYTES, SIDE_PX, thumbnail, with_thumbnails
from tests.support.chunks import decoded_chunk, pixels


def opened(jpeg):
    image = Image.open(io.BytesIO(jpeg))
    image.load()
    return image


def offered(chunk):
    return [value and value.rstrip(b"\0") for value in chunk.rows.column("sample_jpeg").to_pylist()]


def test_without_being_asked_a_chunk_stays_as_it_is():
    chunk = decoded_chunk(pixels(40, 36))
    assert with_thumbnails(chunk, 0) is chunk


def test_the_first_in_the_draw_have_thumbnails_and_failed_ones_have_none():
    images = [pixels(40, 36, seed) for seed in range(6)]
    chunk = decoded_chunk(*images[:3], "decode.corrupt", *images[3:])
    found = with_thumbnails(chunk, 3)
    ok = [index for index in range(7) if index != 3]
    first = sorted(ok, key=lambda index: rank(f"i{index}"))[:3]
    assert [index for index, jpeg in enumerate(offered(found)) if jpeg] == sorted(first)
    assert offered(with_thumbnails(chunk, 99)).count(None) == 1
    assert found.payload.equals(chunk.payload)
    assert found.rows.drop_columns(["sample_jpeg"]).equals(chunk.rows)
    # Making them counts as decoding.
    assert found.measured["decode_s"] > chunk.measured["decode_s"]
    for index in first:
        seen = [*images[:3], None, *images[3:]][index]
        assert np.abs(np.asarray(opened(offered(found)[index])).mean() - seen.mean()) < 8


@pytest.mark.parametrize("chunk", [decoded_chunk(), decoded_chunk("decode.empty", "source.missing")])
def test_a_chunk_without_images_has_the_column_all_the_same(chunk):
    assert offered(with_thumbnails(chunk, 5)) == [None] * chunk.rows.num_rows


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((400, 533), (72, 96)), ((2000, 1500), (96, 72)), ((533, 400), (96, 72)), ((32, 32), (32, 32)),
        ((32, 9000), (1, 96)), ((9000, 32), (96, 1)), ((96, 97), (95, 96)),
    ],
)  # fmt: skip
def test_a_thumbnail_keeps_the_aspect_and_no_side_vanishes(size, expected):
    image = opened(thumbnail(pixels(*size)))
    assert (image.size, image.mode, max(image.size) <= SIDE_PX) == (expected, "RGB", True)


@pytest.mark.parametrize(("size", "expected"), [((3000, 1500), (256, 128)), ((256, 100), (256, 100))])
def test_a_thumbnail_may_be_asked_to_be_larger(size, expected):
    assert opened(thumbnail(pixels(*size), 256)).size == expected


def test_the_size_of_a_ray_row_does_not_depend_on_the_pixels():
    """Another processor may round a pixel in another way; see the chunk's own test."""
    noise = np.random.default_rng(0).integers(0, 2, (96, 96, 3), np.uint8) * 255
    found = [with_thumbnails(decoded_chunk(image), 1) for image in (noise, np.zeros((96, 96, 3), np.uint8))]
    assert found[0].to_table().nbytes == found[1].to_table().nbytes
    assert len(offered(found[1])[0]) < 1000 < len(offered(found[0])[0]) < ROOM_BYTES * 2 // 3
