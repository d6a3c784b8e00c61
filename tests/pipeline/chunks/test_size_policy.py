import dataclasses
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.audit.net_sizes import reckon_net_size
from pipeline.chunks.failures import ErrorCode, Failure
from pipeline.chunks.size_policy import MAX_SOURCE_PIXELS, NetSize, Resize, SizePolicy, net_size

SIDES = st.integers(1, 20_000)


def test_an_ordinary_size_stays_as_it_is():
    assert net_size(500, 375, SizePolicy()) == NetSize(width=500, height=375, scale=1.0)
    assert net_size(32, 32, SizePolicy()) == NetSize(width=32, height=32, scale=1.0)
    assert net_size(2048, 2048, SizePolicy()) == NetSize(width=2048, height=2048, scale=1.0)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (1, 1, NetSize(width=32, height=32, scale=32.0)),
        (16, 8, NetSize(width=64, height=32, scale=4.0)),
        (31, 31, NetSize(width=32, height=32, scale=32 / 31)),
        (3, 50, NetSize(width=32, height=533, scale=32 / 3)),
        (400, 31, NetSize(width=413, height=32, scale=32 / 31)),
    ],
)
def test_a_small_image_grows_until_its_shorter_side_is_32(width, height, expected):
    assert net_size(width, height, SizePolicy()) == expected


def test_a_large_image_shrinks_to_the_largest_size_within_the_limit():
    assert net_size(4096, 4096, SizePolicy()) == NetSize(width=2048, height=2048, scale=0.5)
    assert net_size(4000, 3000, SizePolicy(max_image_pixels=1_000_000)) == NetSize(
        width=1154, height=866, scale=pytest.approx(0.288675, abs=1e-6)
    )


def test_what_cannot_be_enlarged_within_the_limit_is_too_small():
    failure = net_size(1, 5000, SizePolicy())
    assert failure == Failure(
        ErrorCode.IMAGE_TOO_SMALL, "1x5000 px has a side under 32 px; enlarged, it is more than 4194304 px"
    )


def test_what_cannot_be_reduced_with_sides_of_32_is_too_large():
    failure = net_size(40, 300_000, SizePolicy())
    assert failure == Failure(
        ErrorCode.IMAGE_TOO_LARGE, "40x300000 px is more than 4194304 px; reduced, it has a side under 32 px"
    )


def test_reject_refuses_instead_of_resizing():
    policy = SizePolicy(max_image_pixels=10_000, small_images="reject", large_images="reject")
    assert net_size(31, 100, policy) == Failure(ErrorCode.IMAGE_TOO_SMALL, "31x100 px has a side under 32 px")
    assert net_size(101, 100, policy) == Failure(ErrorCode.IMAGE_TOO_LARGE, "101x100 px is more than 10000 px")
    assert net_size(100, 100, policy) == NetSize(width=100, height=100)


def test_no_policy_decodes_more_than_the_hard_limit():
    failure = net_size(2**14, 2**13 + 1, SizePolicy(max_image_pixels=MAX_SOURCE_PIXELS))
    assert isinstance(failure, Failure)
    assert failure.code == ErrorCode.IMAGE_TOO_LARGE


@given(SIDES, SIDES, st.integers(32 * 32, 10_000_000))
def test_every_size_fits_or_is_refused(width, height, limit):
    size = net_size(width, height, SizePolicy(max_image_pixels=limit))
    turned = net_size(height, width, SizePolicy(max_image_pixels=limit))
    if isinstance(size, Failure):
        assert isinstance(turned, Failure)
        assert turned.code == size.code
        return
    assert min(size.width, size.height) >= 32
    assert size.width * size.height <= max(limit, 0)
    assert turned == NetSize(width=size.height, height=size.width, scale=size.scale)
    # Rounded by less than one pixel a side.
    assert abs(size.width - width * size.scale) < 1
    assert abs(size.height - height * size.scale) < 1
    if size.scale == 1.0:
        assert (size.width, size.height) == (width, height)


@pytest.mark.parametrize("limit", [0, 32 * 32 - 1, MAX_SOURCE_PIXELS + 1])
def test_a_limit_that_cannot_work_is_refused(limit):
    with pytest.raises(ValueError, match=str(limit)):
        SizePolicy(max_image_pixels=limit)


def test_the_policy_has_every_number_that_decides_rows():
    assert dataclasses.asdict(SizePolicy()) == {
        "preprocess": "native",
        "resize": None,
        "min_side_px": 32,
        "max_image_pixels": 4_194_304,
        "small_images": "upscale",
        "large_images": "downscale",
        "jpeg_decoding": "whole",
    }


@pytest.mark.parametrize(
    ("native", "cropped_from", "scale"),
    [
        ((500, 375), (330, 248), 248 / 375),  # 330.67, rounded down
        ((375, 500), (248, 330), 248 / 375),
        ((248, 248), (248, 248), 1.0),
        ((20, 10), (496, 248), 24.8),
        ((6000, 4000), (372, 248), 0.062),
    ],
)
def test_the_published_protocol_shows_the_centre_of_the_resized_image_whatever_the_size(native, cropped_from, scale):
    for policy in (SizePolicy(preprocess="imagenet"), SizePolicy(preprocess="imagenet", small_images="reject")):
        expected = NetSize(width=224, height=224, scale=scale, cropped_from=cropped_from)
        assert net_size(*native, policy) == expected
    assert expected.resized == cropped_from


def test_an_image_that_would_be_enlarged_to_a_giant_is_refused():
    failure = net_size(1, 10_000, SizePolicy(preprocess="imagenet"))
    assert (failure.code, "enlarged to a side of 248 px" in failure.message) == (ErrorCode.IMAGE_TOO_SMALL, True)


RESIZES = {
    "shorter": Resize(to="shorter", width=224, height=224),
    "longer": Resize(to="longer", width=224, height=224),
    "longest": Resize(to="longest", width=224, height=224),
    "stretch": Resize(to="stretch", width=224, height=224),
    "multiple": Resize(to="multiple", width=32, height=32),
    "square": Resize(to="shorter", width=248, height=248, crop=(224, 224)),
}


@pytest.mark.parametrize(
    ("to", "native", "expected", "scale"),
    [
        ("shorter", (500, 375), (298, 224), 224 / 375),  # 298.67, rounded down
        ("shorter", (100, 50), (448, 224), 4.48),
        ("longer", (500, 375), (224, 168), 224 / 500),
        ("longer", (100, 50), (100, 50), 1.0),
        ("longer", (2000, 100), (640, 32), 0.32),  # 224x11 is too small: enlarged from the native size
        ("longest", (100, 50), (224, 112), 2.24),
        ("stretch", (500, 375), (224, 224), 224 / (500 * 375) ** 0.5),
        ("stretch", (1, 9), (224, 224), 224 / 3),
        ("multiple", (500, 375), (480, 352), (480 * 352 / (500 * 375)) ** 0.5),
        ("multiple", (20, 64), (32, 64), (32 / 20) ** 0.5),
        ("square", (500, 375), (224, 224), 248 / 375),
    ],
)
def test_each_rule_resizes_as_it_says(to, native, expected, scale):
    size = net_size(*native, SizePolicy(resize=RESIZES[to]))
    assert (size.width, size.height, size.scale) == (*expected, pytest.approx(scale))


def test_the_limits_hold_after_a_rule():
    policy = SizePolicy(resize=RESIZES["shorter"], max_image_pixels=100_000)
    assert net_size(4000, 500, policy) == NetSize(width=894, height=111, scale=pytest.approx(0.2236, abs=1e-4))
    rejecting = replace(policy, large_images="reject", small_images="reject")
    failure = net_size(4000, 500, rejecting)
    assert failure == Failure(ErrorCode.IMAGE_TOO_LARGE, "4000x500 px, resized to 1792x224 px, is more than 100000 px")
    failure = net_size(2000, 100, replace(rejecting, resize=RESIZES["longer"]))
    assert failure == Failure(ErrorCode.IMAGE_TOO_SMALL, "2000x100 px, resized to 224x11 px, has a side under 32 px")
    assert net_size(1, 600_000, policy).code == ErrorCode.IMAGE_TOO_SMALL


@given(SIDES, SIDES, st.sampled_from(sorted(RESIZES)), st.integers(224 * 224, 10_000_000))
def test_exchanged_sides_exchange_the_result_of_each_rule(width, height, to, limit):
    policy = SizePolicy(resize=RESIZES[to], max_image_pixels=limit)
    size, turned = net_size(width, height, policy), net_size(height, width, policy)
    if isinstance(size, Failure):
        assert isinstance(turned, Failure)
        assert turned.code == size.code
        return
    assert min(size.width, size.height) >= 32
    assert size.width * size.height <= limit
    assert (turned.width, turned.height, turned.resized) == (size.height, size.width, size.resized[::-1])
    assert turned.scale == pytest.approx(size.scale)


@given(
    SIDES, SIDES, st.sampled_from([None, *sorted(RESIZES)]), st.integers(224 * 224, 10_000_000),
    st.sampled_from(["upscale", "reject"]), st.sampled_from(["downscale", "reject"]),
)  # fmt: skip
def test_the_audit_reckons_the_same_sizes_by_code_of_its_own(width, height, to, limit, small, large):
    policy = SizePolicy(resize=RESIZES.get(to), max_image_pixels=limit, small_images=small, large_images=large)
    sizes = dataclasses.asdict(policy)
    stored = {"sizes": json.loads(json.dumps(sizes)), "preprocess": {"policy": "native"}}
    size = net_size(width, height, policy)
    if isinstance(size, Failure) and str(MAX_SOURCE_PIXELS) in size.message:
        return  # the audit asks for the sizes of ok rows alone
    expected = None if isinstance(size, Failure) else (size.width, size.height)
    assert reckon_net_size(stored, width, height) == expected


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"width": 16, "height": 16}, "not 16"),
        ({"width": 20_000, "height": 20_000}, "not 20000"),
        ({"height": 300}, "one side"),
        ({"crop": (225, 100)}, "225x100"),
        ({"crop": (8, 8)}, "not 8"),
        ({"to": "longer", "crop": (64, 64)}, "64x64"),
    ],
)
def test_a_rule_that_cannot_work_is_refused(changes, text):
    with pytest.raises(ValueError, match=text):
        replace(RESIZES["shorter"], **changes)
    with pytest.raises(ValueError, match="a size of its own"):
        SizePolicy(preprocess="imagenet", resize=RESIZES["shorter"])
    with pytest.raises(ValueError, match="224x224 px is more than 2000 px"):
        SizePolicy(resize=RESIZES["square"], max_image_pixels=2000)
