"""The shipped weights: their contents, and their accuracy on digits that the training never used."""

from pathlib import Path

import numpy as np
import pytest
import torch

from examples.digits import BANDS, LABELS, draw_size, load_digits, render, split
from examples.train_digits import CONFIG
from model.checkpoints.load import load_checkpoint
from model.packed import run_packed

# What the weights must hold; weights/digits/README.md says what was measured over more images.
LEAST_SHARE_RIGHT = 0.97
FOLDER = Path(__file__).parents[2] / "weights" / "digits"


@pytest.fixture(scope="module")
def loaded():
    return load_checkpoint(FOLDER)


def test_they_are_small_and_say_what_they_are(loaded):
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 2 * 2**20
    assert (loaded.config, loaded.labels, loaded.source_format) == (CONFIG, LABELS, "transformers")


def test_they_read_digits_that_were_held_out_at_mixed_sizes(loaded):
    digits, labels = load_digits()
    _, held_out = split(labels)
    rng = np.random.default_rng(11)
    # Every held-out digit once, the cheap sizes more often: 157 + 94 + 47 + 15.
    counts = (157, 94, 47, 15)
    bands = rng.permutation(np.repeat(np.arange(len(BANDS)), counts))
    images = [
        torch.from_numpy(np.array(render(digits[index], *draw_size(BANDS[band], rng), rng)))
        for index, band in zip(held_out, bands, strict=True)
    ]
    found = run_packed(loaded.model, images).logits.argmax(dim=1).numpy()
    assert np.mean(found == labels[held_out]) >= LEAST_SHARE_RIGHT
