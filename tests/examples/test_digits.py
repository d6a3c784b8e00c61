"""The digits: their division into training and held-out digits, and their drawing."""

import numpy as np
import pytest

from examples.digits import BANDS, MAX_SIDE_PX, draw_size, load_digits, render, split


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def test_every_digit_is_either_trained_on_or_held_out(digits):
    _, labels = digits
    training, held_out = split(labels)
    assert np.array_equal(np.sort(np.concatenate([training, held_out])), np.arange(1797))
    assert (len(training), len(held_out)) == (1484, 313)


def test_four_of_every_twenty_five_of_each_class_are_held_out():
    labels = np.array([7, 3] * 28)
    training, held_out = split(labels)
    assert held_out.tolist() == [*range(8), *range(50, 56)]
    assert training.tolist() == list(range(8, 50))


@pytest.mark.parametrize("size", [(32, 32), (47, 90), (200, 131)], ids=str)
def test_the_same_generator_draws_the_same_image_of_the_size_asked_for(digits, size):
    images, _ = digits
    first, again, other = (render(images[0], *size, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert (first.mode, first.size) == ("RGB", size)
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


@pytest.mark.parametrize("band", BANDS, ids=str)
def test_sizes_lie_in_their_band_and_all_of_it_occurs(band):
    rng = np.random.default_rng(0)
    sizes = [draw_size(band, rng) for _ in range(2000)]
    shorter, longer = np.sort(np.array(sizes), axis=1).T
    assert (shorter.min(), longer.max() <= MAX_SIDE_PX) == (band[0], True)
    assert band[1] * 0.98 <= shorter.max() <= band[1]
    assert np.all(longer < 2 * shorter)
    assert 900 < sum(width > height for width, height in sizes) < 1100


def test_digits_lie_inside_their_images(digits):
    """A digit that left its image would have ink on the frame, which a stretched stroke may touch in one of twenty."""
    images, _ = digits
    rng = np.random.default_rng(0)
    shares = []
    for digit in images:
        pixels = np.asarray(render(digit, 64, 64, rng), dtype=np.float32)
        frame = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        shares.append((np.abs(frame - np.median(frame, axis=0)).max(axis=1) > 70).mean())
    assert np.mean(np.array(shares) > 0.02) < 0.06
    assert max(shares) < 0.2
