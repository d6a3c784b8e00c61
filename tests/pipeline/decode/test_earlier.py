"""An image counts as decoded otherwise if Pillow alone gives other pixels, or if it is refused now; no other counts."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from pipeline.chunks.size_policy import SizePolicy
from pipeline.decode.decode_image import DecodedImage, decode_image
from pipeline.decode.earlier import was_decoded_otherwise
from pipeline.decode.to_rgb import gray_to_uint8
from tests.support import image_matrix


def by_pillow_alone(data):
    """The pixels as Pillow's own settings give them; None if Pillow refuses the image."""
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        if image.mode.startswith("I") or image.mode == "F":
            return np.asarray(Image.fromarray(gray_to_uint8(np.asarray(image))).convert("RGB"))
        if image.has_transparency_data:
            white = Image.new("RGB", image.size, "white")
            rgba = image.convert("RGBA")
            white.paste(rgba, mask=rgba)
            return np.asarray(white)
        return np.asarray(image.convert("RGB"))
    except Exception:
        return None


@pytest.mark.parametrize("group", ["jpeg2000s", "pillow_tiffs"])
def test_the_reason_is_given_for_all_images_that_pillow_alone_shows_otherwise(group):
    wrong, num_otherwise = [], 0
    for case in getattr(image_matrix, group)():
        before = by_pillow_alone(case.data)
        if before is None or "u12" in case.name or "12 bits" in case.name:  # 12-bit grey was scaled by 4095 before, too
            continue
        now = decode_image(case.data, SizePolicy())
        is_other = not isinstance(now, DecodedImage) or not np.array_equal(now.pixels, before)
        num_otherwise += is_other
        if is_other != (was_decoded_otherwise(case.data) is not None):
            wrong.append((case.name, is_other))
    assert wrong == []
    assert (num_otherwise > 0) == (group == "jpeg2000s")


def tiff(values, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


NOISE = image_matrix.noise(3, 65535, "uint16")
WIDE = image_matrix.noise(1, 2**32 - 1, "uint32")[..., 0]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(NOISE[..., 0], photometric="miniswhite"), "inverted"),
        (tiff(NOISE.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"), "read in another layout"),
        (tiff(NOISE.transpose(2, 0, 1).astype("u1"), photometric="rgb", planarconfig="separate"), None),
        (tiff(WIDE), "read as signed"),
        (tiff(WIDE // 4), None),
        (tiff(NOISE[..., 0]), None),
        (tiff((NOISE[..., 0] / 65535).astype("<f4")), None),
        (tiff((NOISE[..., 0] / 65535).astype(">f4"), byteorder=">", compression="zlib"), "read in another layout"),
        (tiff(NOISE[..., 0], extratags=[(50706, "B", 4, (1, 4, 0, 0), True)]), "DNG is not decoded"),
        (tiff(NOISE[..., 0])[:40], None),
        (b"II*\0", None),
        (b"", None),
    ],
)
def test_every_kind_of_wrong_pixels_has_its_reason(data, reason):
    found = was_decoded_otherwise(data)
    assert found is None if reason is None else found is not None and reason in found


@pytest.mark.skipif("PVTV2_TEST_DATA" not in os.environ, reason="needs PVTV2_TEST_DATA")
def test_files_of_others_are_judged_rightly():
    folder = Path(os.environ["PVTV2_TEST_DATA"]) / "cases" / "images"
    found = {file.name for file in folder.iterdir() if was_decoded_otherwise(file.read_bytes())}
    assert found == {
        "jp2_rgb12_all_white.jp2",
        "tiff_gray16_white_is_zero.tif",
        "tiff_gray32.tif",
        "tiff_rgb16_planar_uncompressed.tif",
        "tiff_bigtiff_bigendian.tif",
        "tiff_rgb_float32.tif",
    }
