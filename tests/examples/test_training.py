"""The training loop: right gradients through the network as it is, and weights that learn."""

import numpy as np
import pytest
import torch

from examples.training import fit
from model.checkpoints.random_weights import random_weights
from model.network.config import PVTv2Config
from model.packed import run_packed


def tiny(linear):
    return PVTv2Config(
        embed_dims=(4, 8, 8, 12),
        depths=(1, 1, 2, 1),
        num_heads=(1, 2, 2, 3),
        mlp_ratios=(2, 2, 2, 2),
        sr_ratios=(8, 4, 2, 1),
        linear=linear,
        num_classes=3,
    )


@pytest.mark.parametrize("linear", [False, True])
def test_gradients_are_the_slopes_of_the_logits(linear):
    """Every parameter's gradient is checked in float64, since the network works in place and autograd must notice."""
    generator = torch.Generator().manual_seed(0)
    model = random_weights(tiny(linear), seed=0).double().requires_grad_(True)
    images = torch.randn(2, 3, 37, 50, generator=generator, dtype=torch.float64)
    weights = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    (model(images) * weights).sum().backward()
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        values, step = parameter.detach().clone(), 1e-5
        with torch.no_grad():
            ahead = (parameter.copy_(values + step * direction), (model(images) * weights).sum())[1]
            behind = (parameter.copy_(values - step * direction), (model(images) * weights).sum())[1]
            parameter.copy_(values)
        slope = (parameter.grad * direction).sum().item()
        assert slope == pytest.approx((ahead - behind).item() / (2 * step), rel=1e-5, abs=1e-7), name


def coloured(rng, size):
    """Returns an image in one of three colours, and the number of the colour."""
    number = int(rng.integers(3))
    image = rng.integers(0, 100, (*size, 3), dtype=np.uint8)
    image[..., number] += 100
    return torch.from_numpy(image), number


def test_images_of_mixed_sizes_are_learned():
    rng = np.random.default_rng(0)
    steps = [[coloured(rng, size) for size in [(32, 40), (48, 32)] * 8] for _ in range(30)]
    model = random_weights(tiny(False), seed=0)
    fit(model, steps, len(steps), rate=5e-3)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    examples = [coloured(rng, (40, 56)) for _ in range(30)]
    logits = run_packed(model, [image for image, _ in examples]).logits
    assert logits.argmax(dim=1).tolist() == [number for _, number in examples]
