"""The peers' networks equal ours in every setting, and the benchmarks' packs are those of the job."""

import pytest
import torch

from benchmarks.network import cpu as benchmark
from benchmarks.network.networks import peers, settings
from benchmarks.peers import dataloader
from model.checkpoints.random_weights import random_weights
from model.network.config import VARIANTS
from model.packed import run_packed
from pipeline.infer.infer_step import BUDGETS


@pytest.fixture(scope="module")
def network():
    return random_weights(VARIANTS["b0"], seed=0)


@pytest.fixture(scope="module")
def all_peers(network):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield peers(network, "b0")
    torch.set_num_threads(threads)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_setting_gives_our_logits(network, all_peers, precision):
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (48, 64, 3), dtype=torch.uint8, generator=generator) for _ in range(2)]
    expected = run_packed(network, images).logits
    # bfloat16 keeps 8 bits of a number: hundredths of logits whose deviation is about 2.
    tolerance = 1e-4 if precision == "fp32" else 0.3
    for peer in all_peers.values():
        for setting in settings(precision):
            assert (peer(images, setting) - expected).abs().max() < tolerance, setting


def test_bfloat16_is_run_in_bfloat16(all_peers):
    image = torch.full((32, 32, 3), 128, dtype=torch.uint8)
    peer = all_peers["transformers"]
    exact = peer([image], settings("fp32")[0])
    assert all((peer([image], setting) - exact).abs().max() > 1e-3 for setting in settings("bf16"))


def test_packs_are_as_large_as_an_infer_actors():
    assert BUDGETS["cpu"] == benchmark.BUDGET == dataloader.BUDGET


def test_a_larger_network_gets_fewer_images_and_never_too_few():
    small, large = (benchmark.sizes_of_cases(variant, [(500, 375)], 16, seed=0) for variant in ("b0", "b5"))
    assert [len(sizes) for sizes in small.values()] == [16, 8, 16, 64]
    assert [len(sizes) for sizes in large.values()] == [4, 2, 5, 16]
    assert set(small["mixed native sizes"]) == {(375, 500)}


def test_a_few_sizes_are_spread_over_all_of_them():
    sizes = [(9, 9), (2, 1), (1, 1), (4, 4), (2, 1), (3, 3), (2, 1), (2, 1)]
    assert benchmark.spread(sizes, 4) == [(2, 1), (2, 1), (3, 3), (9, 9)]
    assert benchmark.spread(sizes, 1) == [(2, 1)]


def test_times_as_fast_is_the_median_of_the_rounds_ratios():
    assert benchmark.times_as_fast([1.0, 2.0, 4.0], [2.0, 2.0, 16.0]) == 2.0
