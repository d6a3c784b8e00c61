"""Parity with timm itself at full size: its seven networks, saved by it, loaded here; logits and all maps within 1e-5.

timm needs torchvision, so this is no test of the usual environment: in one that has timm, `python -m
tests.model.parity_timm`. It prints the largest absolute error of each variant and size.
docs/use/checkpoints.md has the result.
"""

import sys
import tempfile
from pathlib import Path

import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from model.checkpoints.load import load_checkpoint
from model.network.config import VARIANTS

SIZES = [(224, 224), (229, 333), (500, 375), (32, 640)]
TOLERANCE = 1e-5


def draw_weights(network: nn.Module, seed: int) -> None:
    """Gives every parameter values of its own, of a size that keeps activations near 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
        is_scale = parameter.dim() == 1 and name.endswith("weight")
        parameter.data = 1 + 0.1 * noise if is_scale else noise * (fan_in**-0.5 if parameter.dim() > 1 else 0.1)


@torch.inference_mode()
def maps_and_logits(network: nn.Module, pixels: Tensor) -> list[Tensor]:
    return [*network.forward_intermediates(pixels, intermediates_only=True), network(pixels)]


def main() -> int:
    worst = 0.0
    for variant in VARIANTS:
        network = timm.create_model(f"pvt_v2_{variant.removesuffix('near').replace('-', '_')}").eval()
        draw_weights(network, seed=3)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            safetensors.torch.save_file(network.state_dict(), path)
            loaded = load_checkpoint(path)
        assert loaded.source_format == "timm"
        cells = []
        for height, width in SIZES:
            pixels = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(height))
            with torch.inference_mode():
                ours = [*loaded.model.forward_features(pixels), loaded.model(pixels)]
            pairs = zip(ours, maps_and_logits(network, pixels), strict=True)
            error = max((a - b).abs().max().item() for a, b in pairs)
            worst = max(worst, error)
            cells.append(f"{height}x{width} {error:.1e}")
        print(f"{variant:10}{'   '.join(cells)}", flush=True)
    print(f"timm {timm.__version__}, torch {torch.__version__}: worst {worst:.1e}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
