"""The images that the training of the digits sees; test_weights.py shows that the training succeeds."""

import numpy as np

from examples.digits import load_digits, split
from examples.train_digits import PHASES, steps


def test_images_grow_from_phase_to_phase_and_those_of_an_entry_share_a_size():
    digits, labels = load_digits()
    drawn = list(steps(digits[:200], labels[:200], 20, seed=0))
    for at, examples in enumerate(drawn):
        entries = next(entries for until, entries in PHASES if at < until * 20)
        sizes = iter([image.shape[:2] for image, _ in examples])
        for (first, last), count in entries:
            size, *others = [next(sizes) for _ in range(count)]
            assert first <= min(size) <= last
            assert all(other == size for other in others)
        assert next(sizes, None) is None


def test_every_digit_is_seen_before_any_comes_again():
    digits, labels = load_digits()
    training, _ = split(labels)
    drawn = [number for examples in steps(digits[training], labels[training], 40, seed=0) for _, number in examples]
    once = np.bincount(labels[training], minlength=10)
    assert np.all(np.bincount(drawn[: len(training) // 2], minlength=10) <= once)
    assert np.array_equal(np.bincount(drawn[: len(training)], minlength=10), once)


def test_the_same_seed_draws_the_same_images():
    digits, labels = load_digits()
    first, again = (list(steps(digits[:100], labels[:100], 4, seed=0)) for _ in range(2))
    for examples, same in zip(first, again, strict=True):
        assert [number for _, number in examples] == [number for _, number in same]
        assert all(image.equal(other) for (image, _), (other, _) in zip(examples, same, strict=True))
