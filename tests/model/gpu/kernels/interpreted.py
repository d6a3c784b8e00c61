"""The GPU's kernels and engine, run by Triton's interpreter: `test_interpreted.py` has pytest take this file.

Each program is run in Python, so maps are small. Products of bfloat16 are left out: this interpreter multiplies the
bits as if they were whole numbers.
"""

from dataclasses import replace

import pytest
import torch

from model.checkpoints.random_weights import random_weights
from model.gpu import kernels as gpu
from model.gpu.engine import Engine
from tests.support.ragged_checks import CHECKS, MEAN, STD, assert_like_alone, memory_without_numbers

HALF = [
    ("attentions", torch.float16),
    ("means", torch.bfloat16),
    ("norms", torch.bfloat16),
    ("patches_of_embeddings", torch.bfloat16),
    ("patches_of_pixels", torch.bfloat16),
    ("what_is_no_number", torch.bfloat16),
]


@pytest.mark.parametrize(("check", "dtype"), [*((check, torch.float32) for check in CHECKS), *HALF], ids=str)
def test_each_map_gives_what_it_gives_alone(check, dtype):
    CHECKS[check](gpu, "cpu", dtype)


@pytest.mark.parametrize(
    ("variant", "depths", "sizes"),
    [
        ("b0", (1, 1, 1, 2), [(32, 34), (33, 32)]),
        ("b1", (1, 1, 1, 1), [(32, 34), (33, 32)]),
        ("b5", (1, 1, 1, 1), [(32, 34), (33, 32)]),
        ("b2-linear", (1, 1, 1, 1), [(9, 40)]),
    ],
)
def test_each_image_gives_what_it_gives_alone(variant, depths, sizes, narrow, photos):
    """Other variants differ in depth alone; they are tested with plain operations."""
    model = random_weights(replace(narrow(variant), depths=depths), 2)
    images = photos(*sizes)
    with memory_without_numbers():
        engine = Engine(model, gpu, mean=MEAN, std=STD, max_tokens=192)
        found = engine.submit(images, maps=True).result()
    assert_like_alone(found, model, images, MEAN, STD, atol=1e-5)
