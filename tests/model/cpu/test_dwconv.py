"""The convolution in all its forms gives what torch's own operations give, map by map."""

import pytest
import torch
from torch.nn.functional import conv2d, gelu

from model.cpu.dwconv import dwconv_gelu
from model.cpu.layout import Group, next_layout

SIDES = [(1, 1), (1, 5), (4, 1), (2, 2), (3, 7), (9, 4)]


def drawn(channels, seed=0):
    layout = next_layout([Group(2, height, width) for height, width in SIDES], 1)
    generator = torch.Generator().manual_seed(seed)
    x_TE = 2 * torch.randn(layout.num_rows, channels, generator=generator)
    return x_TE, torch.randn(channels, 1, 3, 3, generator=generator), torch.randn(channels, generator=generator), layout


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("channels", [16, 48, 256, 8, 20])  # the last two are not whole vectors
def test_each_map_is_convolved_as_if_it_were_alone(kind, channels, relu):
    x_TE, weight, bias, layout = drawn(channels)
    found = dwconv_gelu(x_TE.clone(), weight, bias, layout, relu=relu)
    for group in layout.groups:
        for index in range(group.count):
            start = group.start + index * group.height * group.width
            x_1EHW = (
                x_TE[start : start + group.height * group.width]
                .view(1, group.height, group.width, -1)
                .permute(0, 3, 1, 2)
            )
            expected = gelu(conv2d(x_1EHW.relu() if relu else x_1EHW, weight, bias, padding=1, groups=channels))
            alone = (
                found[start : start + group.height * group.width].view(group.height, group.width, -1).permute(2, 0, 1)
            )
            # Values reach 20; nine products are summed in another order, and erf is good to 1.5e-7.
            torch.testing.assert_close(alone, expected[0], atol=5e-6, rtol=1e-6)
    assert (found[layout.num_tokens :] == 0).all()


def gelus(values):
    """Returns the GELU of 16 values, computed by a convolution that does not change them."""
    layout = next_layout([Group(1, 1, 1)], 1)
    x_TE = torch.zeros(layout.num_rows, 16, dtype=values.dtype)
    x_TE[0] = values
    weight = torch.zeros(16, 1, 3, 3, dtype=values.dtype)
    weight[:, 0, 1, 1] = 1
    return dwconv_gelu(x_TE, weight, torch.zeros(16, dtype=values.dtype), layout)[0].double()


def test_gelu_is_right_far_from_zero_and_at_it(kind):
    values = torch.tensor([0.0, -0.0, 1e-20, 1e4, -1e4, 12.0, -12.0, 0.5, -0.5, 5.5, -5.5, 1.0, -1.0, 3.0, -3.0, 2.0])
    # torch's own erf in float32 is good to 1.5e-7 of 1, which counts where little is left of 1.
    atol = 6e-7 if kind == "torch" else 1e-7
    torch.testing.assert_close(gelus(values), gelu(values.double()), atol=atol, rtol=2e-7)


def test_gelu_of_bfloat16_is_right_everywhere(kind):
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16)
    every = every[every.isfinite() & (every.abs() < 1e4)]
    for values in every.split(16):
        values = torch.cat([values, values.new_zeros(16 - len(values))])
        # Far below zero, what rounding leaves of a half less a half is multiplied by the value.
        atol = 6.1e-5 + 5e-6 * float(values.float().abs().max())
        torch.testing.assert_close(gelus(values), gelu(values.double()), atol=atol, rtol=2**-8)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("channels", [16, 48, 20])
def test_bfloat16_is_rounded_once_from_sums_in_float32(kind, channels, relu):
    x_TE, weight, bias, layout = (
        each.bfloat16() if isinstance(each, torch.Tensor) else each for each in drawn(channels)
    )
    exact = dwconv_gelu(x_TE.float(), weight.float(), bias.float(), layout, relu=relu)
    found = dwconv_gelu(x_TE.clone(), weight, bias, layout, relu=relu)
    assert found.dtype == torch.bfloat16
    # Compiled, GELU is nearly exact, and only the result is rounded: half a unit in the last of eight bits. torch
    # rounds before its GELU, too.
    is_compiled = kind != "torch" and channels % 16 == 0
    rtol, atol = (0.5 * 2**-7, 2e-4) if is_compiled else (2 * 2**-7, 0.04 * 2**-7)
    torch.testing.assert_close(found.float(), exact, rtol=rtol, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("relu", [False, True])
def test_what_is_no_number_stays_none(kind, relu, dtype):
    layout = next_layout([Group(1, 3, 3)], 1)
    x_TE = torch.zeros(layout.num_rows, 16, dtype=dtype)
    x_TE[4, 3] = float("nan")
    found = dwconv_gelu(x_TE, torch.ones(16, 1, 3, 3, dtype=dtype), torch.zeros(16, dtype=dtype), layout, relu=relu)
    assert found[:9, 3].isnan().all()
    assert not found[:, 4].isnan().any()
