"""An MLP in all its forms gives what its operations one by one give, map by map."""

import pytest
import torch
from torch import nn
from torch.nn.functional import gelu

from model.cpu import mlp as module
from model.cpu.layout import Group, next_layout
from model.cpu.mlp import MLP

CHANNELS, HIDDEN = 32, 96
# Some tokens, a few rows and many rows of what is a piece of the MLP here, and a map whose single row is more.
SIDES = [(1, 1), (2, 3), (9, 7), (40, 9), (3, 150), (17, 33), (1, 200), (8, 8)]


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    """Makes pieces of a hundred tokens."""
    monkeypatch.setattr(module, "_PIECE_BYTES", 100 * 2 * HIDDEN)


def drawn(sides, seed=0):
    """Returns the modules norm, first, conv and second, the tokens, and their layout."""
    layout = next_layout([Group(2, height, width) for height, width in sides], 1)
    generator = torch.Generator().manual_seed(seed)
    norm, first = nn.LayerNorm(CHANNELS, eps=1e-6), nn.Linear(CHANNELS, HIDDEN)
    conv, second = nn.Conv2d(HIDDEN, HIDDEN, 3, padding=1, groups=HIDDEN), nn.Linear(HIDDEN, CHANNELS)
    modules = [each.requires_grad_(False) for each in (norm, first, conv, second)]
    for each in modules:
        for parameter in each.parameters():
            inputs = parameter.shape[1:].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * inputs**-0.5)
    norm.weight.add_(1)
    return modules, 3 * torch.randn(layout.num_rows, CHANNELS, generator=generator) + 1, layout


def one_by_one(modules, x_TC, layout, relu):
    """Returns the MLP's output, computed operation by operation and map by map, in the type of the modules."""
    norm, first, conv, second = modules
    found = []
    for group in layout.groups:
        for x_NC in x_TC[group.start : group.stop].split(group.height * group.width):
            x_NE = first(norm(x_NC))
            x_1EHW = (x_NE.relu() if relu else x_NE).t().unflatten(1, (group.height, group.width))[None]
            found.append(x_NC + second(gelu(conv(x_1EHW))[0].flatten(1).t()))
    return torch.cat(found)


@pytest.mark.parametrize("relu", [False, True])
def test_float32_is_that_of_the_operations(kind, relu):
    modules, x_TC, layout = drawn(SIDES)
    expected = one_by_one([each.double() for each in modules], x_TC.double(), layout, relu)
    found = MLP(*(each.float() for each in modules), relu=relu)(x_TC, layout)
    torch.testing.assert_close(found[: layout.num_tokens].double(), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("sides", [SIDES, SIDES[:2], SIDES[3:4], SIDES[6:7], SIDES[::-1]], ids=str)
def test_bfloat16_is_as_good_as_that_of_the_operations(kind, sides, relu):
    modules, x_TC, layout = drawn(sides)
    modules, x_TC = [each.bfloat16() for each in modules], x_TC.bfloat16()
    theirs = one_by_one(modules, x_TC, layout, relu)
    before = x_TC.clone()
    ours = MLP(*modules, relu=relu)(x_TC, layout)
    assert ours.dtype == torch.bfloat16 and x_TC.equal(before)
    exact = one_by_one([each.double() for each in modules], x_TC.double(), layout, relu)
    errors = [(each[: layout.num_tokens].double() - exact) for each in (ours, theirs)]
    assert errors[0].square().mean() <= 1.2 * errors[1].square().mean()
    assert errors[0].abs().max() <= 1.5 * errors[1].abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_no_number_stays_with_its_neighbours(kind, dtype):
    modules, x_TC, layout = drawn(SIDES)
    modules, x_TC = [each.to(dtype) for each in modules], x_TC.to(dtype)
    x_TC[layout.num_tokens :] = float("nan")
    group = layout.groups[3]
    at = group.start + 20 * group.width + 4
    x_TC[at, 5] = float("nan")
    bad = MLP(*modules)(x_TC, layout)[: layout.num_tokens].isnan().all(dim=1)
    expected = {at + row * group.width + column for row in (-1, 0, 1) for column in (-1, 0, 1)}
    assert set(bad.nonzero().flatten().tolist()) == expected
