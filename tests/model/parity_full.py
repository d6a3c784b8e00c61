"""Parity with transformers at full size: seven variants, three sources, four image sizes; all within 1e-5.

Too slow for every run, so its name keeps it from being collected: `python -m pytest tests/model/parity_full.py`. It
prints the largest absolute error of logits and maps for each variant, source and size. Checkpoints of timm and of the
original repository are transformers' with the tensors renamed, and are held against transformers' network with the
epsilons of their source.
"""

import pytest
import safetensors.torch
import torch

from model.checkpoints.load import load_checkpoint, save_checkpoint
from model.checkpoints.random_weights import random_weights
from model.network.config import VARIANTS
from tests.support.renaming import as_original, as_timm, use_source_epsilons

SIZES = [(224, 224), (229, 333), (500, 375), (32, 640)]
SOURCES = {"transformers": None, "timm": as_timm, "original": as_original}
TOLERANCE = 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_full_size_parity(variant, oracle, images, tmp_path, capsys):
    config = VARIANTS[variant]
    save_checkpoint(random_weights(config, seed=1), config, None, tmp_path)
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    reference = oracle(tmp_path)
    worst = 0.0
    for source, renamed in SOURCES.items():
        path = tmp_path
        if renamed is not None:
            path = tmp_path / source / "weights.safetensors"
            path.parent.mkdir()
            safetensors.torch.save_file(renamed(tensors), path)
            use_source_epsilons(reference.network)
        model = load_checkpoint(path).model
        errors = {}
        for size in SIZES:
            pixels = images(1, *size)
            logits, maps = reference(pixels)
            pairs = [(model(pixels), logits), *zip(model.forward_features(pixels), maps, strict=True)]
            errors[size] = torch.stack([(ours - theirs).abs().max() for ours, theirs in pairs]).max().item()
        with capsys.disabled():
            cells = "   ".join(f"{height}x{width} {error:.1e}" for (height, width), error in errors.items())
            print(f"\n{variant:10}{source:13}{cells}", end="", flush=True)
        worst = max(worst, *errors.values())
    assert worst <= TOLERANCE
