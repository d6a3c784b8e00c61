"""Checks that the job can work here: imports the job, and runs two images of different sizes through a small network.

    docker run --rm IMAGE            # or: python healthcheck.py, as a startup probe

The answers must equal those of the plain network. The check prints a sentence and ends with exit code 0 or 1. The
packages must be importable.
"""

import sys

import torch

from jobs import classify  # noqa: F401 - an image in which the job cannot even be imported is no good
from model import IMAGENET_MEAN, IMAGENET_STD, PVTv2Config, is_compiled, normalised, random_weights, run_packed

# Answers are around 1. Rounding errors are far smaller than the tolerance, also on GPUs. Errors of a wrong kernel are
# far larger.
TOLERANCE = 1e-3
SIZES = ((64, 48), (40, 90))
SMALL = PVTv2Config(
    embed_dims=(16, 32, 80, 128),
    depths=(1, 1, 1, 1),
    num_heads=(1, 2, 5, 8),
    mlp_ratios=(8, 8, 4, 4),
    sr_ratios=(8, 4, 2, 1),
    num_classes=11,
)


@torch.inference_mode()
def difference(device: str) -> float:
    """Returns the largest difference between the answers of a pack on the device and the plain network's on the CPU."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator) for size in SIZES]
    model = random_weights(SMALL, seed=0)
    plain = [model(normalised(image[None], IMAGENET_MEAN, IMAGENET_STD).permute(0, 3, 1, 2)) for image in images]
    packed = run_packed(model.to(device), images).logits
    assert packed is not None  # `run_packed` computes logits by default
    return float((packed.cpu() - torch.cat(plain)).abs().nan_to_num(float("inf")).max())


def main() -> int:
    """Runs the check, prints a sentence, and returns the exit code: 0 if the answers are right, 1 if not."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    where = f"torch {torch.__version__} on {device}, {'with' if is_compiled() else 'without'} compiled CPU kernels"
    try:
        found = difference(device)
    except Exception as error:  # any error means that the image cannot do its work here
        print(f"unhealthy: {where}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    if found > TOLERANCE:
        print(f"unhealthy: {where}: answers differ by {found:.2g} from the plain network's", file=sys.stderr)
        return 1
    print(f"healthy: {where}; two sizes in one pack differ by {found:.2g} from the plain network")
    return 0


if __name__ == "__main__":
    sys.exit(main())
