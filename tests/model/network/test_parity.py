"""Parity with transformers, which loads what this package saved: narrow networks of every variant's structure.

The tolerance is that of the contract. In float64 the two agree to 1e-12, so that what is left in float32 is rounding:
a few units in the seventh digit of values up to 5, from another order of summation. parity_full.py checks full sizes.
"""

import copy

import pytest
import torch

from model.checkpoints.load import load_checkpoint, save_checkpoint
from model.checkpoints.random_weights import random_weights
from model.network.config import VARIANTS

SIZES = [(224, 224), (229, 333), (500, 375), (32, 640)]


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request, narrow, oracle, tmp_path_factory):
    """Returns our network and transformers', each loaded from a folder that a third network wrote."""
    folder = tmp_path_factory.mktemp(request.param)
    config = narrow(request.param)
    save_checkpoint(random_weights(config, seed=1), config, None, folder)
    return load_checkpoint(folder).model, oracle(folder)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_logits_and_maps_are_those_of_transformers(pair, size, images):
    model, reference = pair
    pixels = images(1, *size)
    logits, maps = reference(pixels)
    torch.testing.assert_close(model(pixels), logits, atol=1e-5, rtol=0)
    for ours, theirs in zip(model.forward_features(pixels), maps, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_in_float64_nothing_but_the_last_digits_differs(pair, images):
    model, reference = copy.deepcopy(pair)
    model.double()
    reference.network.double()
    pixels = images(2, 61, 95).double()
    logits, maps = reference(pixels)
    torch.testing.assert_close(model(pixels), logits, atol=1e-12, rtol=0)
    for ours, theirs in zip(model.forward_features(pixels), maps, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
