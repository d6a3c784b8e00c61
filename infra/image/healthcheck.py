"""Whether the job can work here: all of it is imported, and two images of different sizes run through a small network.

    docker run --rm IMAGE            # or: python healthcheck.py, as a startup probe

Their answers must be those of the plain network. Exit 0 or 1, and a sentence. The packages must be importable.
"""

import sys

import torch

from jobs import classify  # noqa: F401 - an image in which the job cannot even be imported is no good
from model import IMAGENET_MEAN, IMAGENET_STD, PVTv2Config, is_compiled, normalised, random_weights, run_packed

TOLERANCE = 1e-3  # of answers around 1: far above rounding, on GPUs too, and far below what a wrong kernel does
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
    """Largest difference of an answer in a pack on the device from the plain network's on the CPU."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator) for size in SIZES]
    model = random_weights(SMALL, seed=0)
    plain = [model(normalised(image[None], IMAGENET_MEAN, IMAGENET_STD).permute(0, 3, 1, 2)) for image in images]
    packed = run_packed(model.to(device), images).logits
    assert packed is not None  # logits are what is asked for by default
    return float((packed.cpu() - torch.cat(plain)).abs().nan_to_num(float("inf")).max())


def main() -> int:
    """Prints a sentence; 0 if the answers are right, 1 if not."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    where = f"torch {torch.__version__} on {device}, {'with' if is_compiled() else 'without'} compiled CPU kernels"
    try:
        found = difference(device)
    except Exception as error:  # whatever it is, the image cannot do its work here
        print(f"unhealthy: {where}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    if found > TOLERANCE:
        print(f"unhealthy: {where}: answers differ by {found:.2g} from the plain network's", file=sys.stderr)
        return 1
    print(f"healthy: {where}; two sizes in one pack differ by {found:.2g} from the plain network")
    return 0


if __name__ == "__main__":
    sys.exit(main())
