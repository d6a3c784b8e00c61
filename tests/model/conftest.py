"""The oracle and the small networks that the tests of the model share."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.network.config import VARIANTS, PVTv2Config

SMALL_DIMS = (8, 16, 40, 64)
WIDER_DIMS = (16, 32, 80, 128)
NARROW = {  # each variant's structure with fewer channels and blocks, and depths that differ where its own do
    "b0": (SMALL_DIMS, (2, 2, 2, 2)),
    "b1": (WIDER_DIMS, (2, 2, 2, 2)),
    "b2": (WIDER_DIMS, (1, 2, 3, 1)),
    "b2-linear": (WIDER_DIMS, (1, 2, 3, 1)),
    "b3": (WIDER_DIMS, (1, 2, 4, 1)),
    "b4": (WIDER_DIMS, (1, 3, 5, 1)),
    "b5": (WIDER_DIMS, (1, 2, 6, 1)),
}


@pytest.fixture(scope="session")
def narrow() -> Callable[[str], PVTv2Config]:
    """Gives a variant's structure in a size that tests can afford, with 11 classes."""

    def narrowed(variant: str) -> PVTv2Config:
        embed_dims, depths = NARROW[variant]
        return replace(VARIANTS[variant], embed_dims=embed_dims, depths=depths, num_classes=11)

    return narrowed


class Oracle:
    """transformers' own network, loaded by transformers from a folder that it could have written."""

    def __init__(self, folder: Path) -> None:
        # Not at the top of the file: importing it takes seconds, which most tests need not spend.
        from transformers import PvtV2ForImageClassification
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.network, found = PvtV2ForImageClassification.from_pretrained(folder, output_loading_info=True)
        assert not any(found.values()), found  # no key missing, unexpected or misshapen
        self.network.eval()

    @torch.inference_mode()
    def __call__(self, images_BCHW: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The logits, and the four maps."""
        output = self.network(images_BCHW, output_hidden_states=True)
        return output.logits, output.hidden_states


@pytest.fixture(scope="session")
def oracle() -> type[Oracle]:
    return Oracle


def draw_images(batch: int, height: int, width: int) -> Tensor:
    """Images BCHW, float32, distributed as normalised pixels are: the same ones on every call."""
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(height * 10007 + width))


@pytest.fixture(scope="session")
def images() -> Callable[[int, int, int], Tensor]:
    return draw_images


@pytest.fixture(scope="session")
def photos() -> Callable[..., list[Tensor]]:
    """Gives images HWC uint8 of the sizes asked for, of smooth colours and noise, no two alike."""

    def drawn(*sizes: tuple[int, int]) -> list[Tensor]:
        generator = torch.Generator().manual_seed(5)
        images = []
        for height, width in sizes:
            coarse = torch.rand(1, 3, 4, 4, generator=generator)
            smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0].permute(1, 2, 0)
            noise = torch.rand(height, width, 3, generator=generator)
            images.append((smooth * 200 + noise * 55).to(torch.uint8))
        return images

    return drawn
