"""The norm in all its forms gives what torch's own gives."""

import pytest
import torch
from torch import nn

from model.cpu.norm import LayerNorm


def drawn(channels, eps, dtype=torch.float32):
    generator = torch.Generator().manual_seed(channels)
    norm = nn.LayerNorm(channels, eps=eps).requires_grad_(False)
    norm.weight.copy_(torch.randn(channels, generator=generator))
    norm.bias.copy_(torch.randn(channels, generator=generator))
    return norm.to(dtype), (3 * torch.randn(37, channels, generator=generator) + 5).to(dtype)


@pytest.mark.parametrize("eps", [1e-6, 1e-5, 0.5])
@pytest.mark.parametrize("channels", [16, 32, 160, 512, 24])
def test_each_token_is_normed_over_its_channels(kind, channels, eps):
    norm, x_TC = drawn(channels, eps)
    exact = nn.functional.layer_norm(x_TC.double(), (channels,), norm.weight.double(), norm.bias.double(), eps)
    before = x_TC.clone()
    torch.testing.assert_close(LayerNorm(norm)(x_TC).double(), exact, atol=5e-6, rtol=0)
    assert x_TC.equal(before)


@pytest.mark.parametrize("channels", [32, 160, 24])
def test_bfloat16_is_rounded_once_from_sums_in_float32(kind, channels):
    norm, x_TC = drawn(channels, 1e-6, torch.bfloat16)
    exact = nn.functional.layer_norm(x_TC.float(), (channels,), norm.weight.float(), norm.bias.float(), 1e-6)
    found = LayerNorm(norm)(x_TC)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=2**-8, atol=1e-5)


def test_a_token_of_equal_values_becomes_the_bias(kind):
    norm, _ = drawn(32, 1e-6)
    found = LayerNorm(norm)(torch.full((5, 32), 7.25))
    torch.testing.assert_close(found, norm.bias.expand(5, 32), atol=1e-6, rtol=0)


def test_what_is_no_number_stays_in_its_token(kind):
    norm, x_TC = drawn(32, 1e-6)
    x_TC[3, 5] = float("nan")
    found = LayerNorm(norm)(x_TC)
    assert found[3].isnan().all()
    assert not found[[*range(3), *range(4, 37)]].isnan().any()
