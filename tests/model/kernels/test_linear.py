"""A linear layer gives what torch's own gives, whoever computes it."""

import pytest
import torch
from torch.nn.functional import linear

from model.kernels import linear as module
from model.kernels.linear import Linear


@pytest.fixture(params=["onednn", "torch"])
def kind(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(module, "_has_onednn", lambda: False)
    elif not module._has_onednn():
        pytest.skip("this torch has no oneDNN")
    return request.param


@pytest.mark.parametrize("inputs", [32, 147, module._MAX_INPUTS, module._MAX_INPUTS + 1])
@pytest.mark.parametrize("rows", [1, 7, 256])
def test_products_biases_and_residuals_are_summed(kind, rows, inputs):
    generator = torch.Generator().manual_seed(0)
    x, residual = torch.randn(rows, inputs, generator=generator), torch.randn(rows, 24, generator=generator)
    weight, bias = torch.randn(24, inputs, generator=generator) * inputs**-0.5, torch.randn(24, generator=generator)
    for b in (bias, None):
        layer = Linear(weight, b)
        torch.testing.assert_close(layer(x), linear(x, weight, b), atol=4e-6, rtol=0)
        before = residual.clone()
        torch.testing.assert_close(layer(x, residual), linear(x, weight, b) + before, atol=4e-6, rtol=0)
        assert residual.equal(before)


def test_long_sums_stay_with_torch(kind):
    assert Linear(torch.zeros(8, module._MAX_INPUTS + 1), None)._packed is None
    assert (Linear(torch.zeros(8, module._MAX_INPUTS), None)._packed is not None) == (kind == "onednn")


def test_other_types_than_float32_are_torchs(kind):
    weight, bias = torch.ones(8, 16).bfloat16(), torch.zeros(8).bfloat16()
    assert Linear(weight, bias)(torch.ones(2, 16).bfloat16()).eq(16).all()
