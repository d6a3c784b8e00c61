"""Parameters and multiply-accumulates, against published figures and against the network itself."""

from dataclasses import replace
from math import prod

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model.network.config import VARIANTS
from model.network.cost import count_macs, count_parameters
from model.network.pvt_v2 import PVTv2
from model.network.shapes import parameter_shapes

PARAMETERS_M = {"b0": 3.67, "b1": 14.01, "b2": 25.36, "b2-linear": 22.55, "b3": 45.24, "b4": 62.56, "b5": 81.96}
GMACS_AT_224 = {"b0": 0.57, "b1": 2.11, "b2": 4.03, "b2-linear": 3.89, "b3": 6.90, "b4": 10.10, "b5": 11.72}


def on_meta(config):
    with torch.device("meta"):
        return PVTv2(config)


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_are_the_published_ones(name):
    assert round(count_parameters(VARIANTS[name]) / 1e6, 2) == PARAMETERS_M[name]


@pytest.mark.parametrize("name", VARIANTS)
def test_macs_at_224_px_are_the_published_ones(name):
    assert round(count_macs(VARIANTS[name], 224, 224) / 1e9, 2) == GMACS_AT_224[name]


@pytest.mark.parametrize("change", [{}, {"num_classes": 0}, {"qkv_bias": False}], ids=str)
@pytest.mark.parametrize("name", ["b0", "b2-linear", "b5"])
def test_parameters_are_those_of_the_network(name, change):
    config = replace(VARIANTS[name], **change)
    parameters = {name: tuple(value.shape) for name, value in on_meta(config).state_dict().items()}
    assert parameter_shapes(config) == parameters
    assert count_parameters(config) == sum(map(prod, parameters.values()))


@pytest.mark.parametrize("size", [(224, 224), (229, 333), (32, 640)], ids=str)
@pytest.mark.parametrize("name", VARIANTS)
def test_macs_are_those_that_torch_counts_in_a_forward_pass(name, size, narrow):
    config = narrow(name)
    with FlopCounterMode(display=False) as counter:
        on_meta(config)(torch.empty(1, 3, *size, device="meta"))
    assert 2 * count_macs(config, *size) == counter.get_total_flops()


def test_large_images_cost_what_attention_makes_them_cost():
    b2, b2_linear = VARIANTS["b2"], VARIANTS["b2-linear"]
    assert [round(count_macs(b2, side, side) / 1e9) for side in (224, 1024, 2048)] == [4, 143, 1321]
    assert [round(count_macs(b2_linear, side, side) / 1e9) for side in (1024, 2048)] == [77, 307]
