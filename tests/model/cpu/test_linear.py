"""A linear layer gives what torch's own gives, in compiled code, by oneDNN and by torch."""

import pytest
import torch
from torch.nn.functional import linear

from model.cpu import linear as module
from model.cpu.linear import Linear


@pytest.fixture(params=["as installed", "onednn", "torch"])
def kind(request, monkeypatch):
    if request.param == "as installed":
        return request.param
    monkeypatch.setattr(module, "tiled", lambda *_: None)
    if request.param == "torch":
        monkeypatch.setattr(module, "_has_onednn", lambda dtype: False)
    elif not module._has_onednn(torch.float32):
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
    assert (Linear(torch.zeros(8, module._MAX_INPUTS), None)._packed is not None) == (kind != "torch")


def test_sums_taken_in_parts_are_nearer_the_truth():
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(256, 4096, generator=generator), torch.randn(64, 4096, generator=generator) / 64
    bias = torch.randn(64, generator=generator)
    truth = linear(x.double(), weight.double(), bias.double())
    in_one, in_parts = (
        float((Linear(weight, bias, in_parts=in_parts)(x) - truth).square().mean().sqrt()) for in_parts in (False, True)
    )
    assert in_parts < 0.9 * in_one
    assert in_parts < 3e-7


@pytest.mark.parametrize("inputs", [module._PART - 1, module._PART, 3 * module._PART, 3 * module._PART + 1])
def test_layers_in_parts_take_any_number_of_inputs(inputs):
    generator = torch.Generator().manual_seed(0)
    x, residual = torch.randn(9, inputs, generator=generator), torch.randn(9, 24, generator=generator)
    weight = torch.randn(24, inputs, generator=generator) * inputs**-0.5
    layer = Linear(weight, None, in_parts=True)
    torch.testing.assert_close(layer(x, residual), linear(x, weight) + residual, atol=4e-6, rtol=0)


@pytest.mark.parametrize("outputs", [24, 32, 160])
@pytest.mark.parametrize("rows", [1, 15, 16, 17, 64, 4100])
@pytest.mark.parametrize("inputs", [32, 147, 1280])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once_from_sums_in_float32(kind, dtype, inputs, rows, outputs):
    generator = torch.Generator().manual_seed(0)
    x, residual = torch.randn(rows, inputs, generator=generator), torch.randn(rows, outputs, generator=generator)
    weight = torch.randn(outputs, inputs, generator=generator) * inputs**-0.5
    bias = torch.randn(outputs, generator=generator)
    x, residual, weight, bias = (tensor.to(dtype) for tensor in (x, residual, weight, bias))
    exact = linear(x.float(), weight.float(), bias.float())
    ulp = torch.finfo(dtype).eps * 4  # of values up to 8
    layer = Linear(weight, bias, may_widen=True)
    x = torch.nn.functional.pad(x, (0, layer.inputs - inputs))
    before = residual.clone()
    torch.testing.assert_close(layer(x).float(), exact, atol=ulp, rtol=0)
    # Where torch adds the residual, the sum is rounded before and after.
    torch.testing.assert_close(layer(x, residual).float(), exact + before.float(), atol=2 * ulp, rtol=0)
    assert residual.equal(before)


def test_what_is_no_number_stays_in_its_row(kind):
    x = torch.zeros(40, 64, dtype=torch.bfloat16)
    x[33, 5] = float("nan")
    found = Linear(torch.ones(32, 64, dtype=torch.bfloat16), None)(x)
    assert found[33].isnan().all()
    assert found.isnan().sum() == 32


def test_tiles_leave_those_of_others_alone(kind):
    """oneDNN remembers the shapes that it gave to the tiles, and does not check them again."""
    x, weight = torch.randn(64, 96).bfloat16(), torch.randn(64, 96).bfloat16()
    expected = x @ weight.t()
    for _ in range(2):
        Linear(weight, None)(x[:37])
        assert (x @ weight.t()).equal(expected)
