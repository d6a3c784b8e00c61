import numpy as np
import pytest

from pipeline.decode.to_rgb import gray_to_uint8


def gray(values, dtype, **options):
    return gray_to_uint8(np.array([values], dtype), **options).tolist()[0]


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_sixteen_bits_are_scaled_and_not_clipped(dtype):
    assert gray([0, 128, 129, 257, 32896, 65406, 65535], dtype) == [0, 0, 1, 1, 128, 254, 255]


def test_twelve_bits_fill_the_range():
    assert gray([0, 2048, 4095, 5000], "<u2", max_value=4095) == [0, 128, 255, 255]


def test_integers_are_sixteen_bits_where_they_fit():
    assert gray([0, 257, 65535], np.int32) == [0, 1, 255]
    assert gray([5, 200], np.int32) == [0, 1]


def test_integers_of_another_range_are_stretched():
    assert gray([-100, 0, 100], np.int32) == [0, 128, 255]
    assert gray([0, 65536], np.int32) == [0, 255]
    assert gray([-(2**31), 2**31 - 1], np.int32) == [0, 255]
    assert gray([70_000, 70_000], np.int32) == [0, 0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0.5, 1], [0, 128, 255]),
        ([0, 1.25, 255], [0, 1, 255]),
        ([0, 257, 65535], [0, 1, 255]),
        ([-1, 0, 1], [0, 128, 255]),
        ([0, 1e6], [0, 255]),
        ([-3e38, 3e38], [0, 255]),
        ([1e9, 1e9], [0, 0]),
    ],
)
def test_floats_are_taken_for_the_narrowest_range_that_holds_them(values, expected):
    assert gray(values, np.float32) == expected


def test_a_float_that_is_not_finite_is_black_and_has_no_say():
    nan, inf = float("nan"), float("inf")
    assert gray([nan, inf, -inf, 0.5, 1], np.float32) == [0, 0, 0, 128, 255]
    assert gray([nan, -4, 4], np.float32) == [0, 0, 255]
    assert gray([nan, inf], np.float32) == [0, 0]
