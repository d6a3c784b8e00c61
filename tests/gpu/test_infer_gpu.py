"""The infer step on a real GPU gives what it gives on the CPU."""

import pytest
import torch

from model.checkpoints.random_weights import random_weights
from model.network.config import VARIANTS
from model.packed import run_packed

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

SIZES = [(224, 224), (375, 500), (333, 229), (32, 640), (224, 224)]


@pytest.mark.parametrize("variant", ["b0", "b2", "b2-linear"])
def test_logits_on_the_gpu_equal_those_on_the_cpu(variant):
    torch.backends.cudnn.allow_tf32 = False
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator) for size in SIZES]
    model = random_weights(VARIANTS[variant], 0)
    expected = run_packed(model, images).logits
    found = run_packed(model.to("cuda"), images).logits
    # Sums are taken in another order; in float32 that is worth some 1e-5 at logits of about 1.
    assert torch.allclose(found.cpu(), expected, atol=1e-4, rtol=0)
