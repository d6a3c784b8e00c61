"""Parity with transformers at full size: seven variants, four image sizes, logits and all maps within 1e-5.

Too slow for every run, so its name keeps it from being collected: `python -m pytest tests/model/parity_full.py`. It
prints the largest absolute error of each variant and size.
"""

import pytest
import torch

from model.config import VARIANTS
from model.random_weights import random_weights
from model.weights import load_checkpoint, save_checkpoint

SIZES = [(224, 224), (229, 333), (500, 375), (32, 640)]
TOLERANCE = 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_full_size_parity(variant, oracle, images, tmp_path, capsys):
    config = VARIANTS[variant]
    save_checkpoint(random_weights(config, seed=1), config, None, tmp_path)
    model, reference = load_checkpoint(tmp_path).model, oracle(tmp_path)
    errors = {}
    for size in SIZES:
        pixels = images(1, *size)
        logits, maps = reference(pixels)
        pairs = [(model(pixels), logits), *zip(model.forward_features(pixels), maps, strict=True)]
        errors[size] = torch.stack([(ours - theirs).abs().max() for ours, theirs in pairs]).max().item()
    with capsys.disabled():
        cells = "   ".join(f"{height}x{width} {error:.1e}" for (height, width), error in errors.items())
        print(f"\n{variant:10}{cells}", flush=True)
    assert all(error <= TOLERANCE for error in errors.values())
