"""The network's shapes, its memory layout, and the inputs that it refuses. test_parity.py tests its numbers."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from model.checkpoints.random_weights import random_weights
from model.network.config import VARIANTS, stage_sides
from model.network.pvt_v2 import PVTv2, to_map, to_tokens


class CopyCounter(TorchDispatchMode):
    """Counts the operations that copy a tensor, by name."""

    def __init__(self):
        super().__init__()
        self.copies = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten.clone, torch.ops.aten.copy_, torch.ops.aten._to_copy):
            self.copies[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "num_copies"), [("b0", 3 + 6), ("b2-linear", 3)])
@pytest.mark.parametrize("batch", [1, 3])
def test_nothing_is_copied_but_maps_between_stages_and_windows_of_keys(name, num_copies, batch, narrow, images):
    model = random_weights(narrow(name), seed=0)
    pixels = images(batch, 64, 96).to(memory_format=torch.channels_last)
    with CopyCounter() as counter:
        model(pixels)
    assert counter.copies.total() == num_copies, counter.copies


def test_maps_and_tokens_share_memory():
    tokens = torch.arange(24.0).reshape(1, 6, 4)
    assert to_map(tokens, 2, 3).shape == (1, 4, 2, 3)
    assert to_tokens(to_map(tokens, 2, 3)).data_ptr() == tokens.data_ptr()


@pytest.mark.parametrize("size", [(29, 29), (33, 100)], ids=str)
def test_maps_have_the_sides_that_the_configuration_tells(size, narrow, images):
    config = narrow("b0")
    maps = random_weights(config, seed=0).forward_features(images(2, *size))
    assert [tuple(each.shape) for each in maps] == [
        (2, channels, *sides) for channels, sides in zip(config.embed_dims, stage_sides(*size), strict=True)
    ]


def test_the_layout_of_the_input_does_not_matter(narrow, images):
    model = random_weights(narrow("b0"), seed=0)
    pixels = images(2, 64, 48)
    assert torch.equal(model(pixels), model(pixels.to(memory_format=torch.channels_last)))


def test_an_image_too_small_for_standard_attention_is_refused_with_the_limit(narrow, images):
    model = random_weights(narrow("b0"), seed=0)
    with pytest.raises(ValueError, match="28x64 px is too small: this network needs at least 29 px a side"):
        model(images(1, 28, 64))


def test_linear_attention_takes_a_single_pixel(narrow, images):
    assert random_weights(narrow("b2-linear"), seed=0)(images(1, 1, 1)).isfinite().all()


def test_logits_of_a_network_without_a_head_are_refused():
    with torch.device("meta"):
        model = PVTv2(replace(VARIANTS["b0"], num_classes=0))
    with pytest.raises(ValueError, match="has no head"):
        model(torch.empty(1, 3, 32, 32, device="meta"))


def test_the_network_takes_no_gradients(narrow, images):
    assert not random_weights(narrow("b0"), seed=0)(images(1, 32, 32)).requires_grad
