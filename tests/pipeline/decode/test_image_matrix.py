"""Every layout that the writers can make is decoded rightly or refused by name; it never gives other pixels."""

from collections import Counter

import numpy as np
import pytest

from pipeline.chunks.failures import ErrorCode
from pipeline.chunks.size_policy import SizePolicy
from pipeline.decode.decode_image import DecodedImage, decode_image, probe_size
from tests.support import image_matrix

# Of each group, the fewest images that are decoded, and whether some are refused.
GROUPS = {
    "tiffs": (2000, True),
    "pillow_tiffs": (120, True),
    "pngs": (20, False),
    "jpeg2000s": (30, True),
    "pnms": (30, False),
    "lossless_others": (10, True),
    "lossy": (10, True),
}

NEVER_REFUSED = tuple(
    f"tiff u16 {kind}" for kind in ("gray, opaque", "white is zero, opaque", "rgb, opaque", "rgb, unassalpha")
)


@pytest.mark.parametrize("group", GROUPS)
def test_an_image_of_any_layout_is_right_or_refused_by_name(group):
    counts, wrong = Counter(), []
    for case in getattr(image_matrix, group)():
        result = decode_image(case.data, SizePolicy())
        if isinstance(result, DecodedImage):
            counts["right"] += 1
            error = np.abs(result.pixels - case.pixels).max() if result.pixels.shape == case.pixels.shape else None
            if error is None or error > case.tolerance:
                wrong.append((case.name, error))
            if probe_size(case.data) != (image_matrix.WIDTH, image_matrix.HEIGHT):
                wrong.append((case.name, probe_size(case.data)))
        else:
            counts["refused"] += 1
            if case.name.startswith(NEVER_REFUSED) and not case.name.endswith(">, strips, big"):
                wrong.append((case.name, result.failure))
            if result.failure.code is not ErrorCode.DECODE_UNSUPPORTED:
                wrong.append((case.name, result.failure))
    assert wrong == []
    fewest, has_refused = GROUPS[group]
    assert counts["right"] >= fewest
    assert (counts["refused"] > 0) == has_refused
