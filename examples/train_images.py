"""Trains a PVTv2 on images in class folders, and saves the network with the names of the folders as labels.

python examples/train_images.py --images photos/train --epochs 10 --out build/photos
"""

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that a clone runs without being installed

from examples.predict_images import Pixels, read_tree
from examples.training import Example, fit, fresh_weights
from model import VARIANTS, PVTv2, load_checkpoint, save_checkpoint

IMAGES_PER_STEP = 32
RATE = 1e-3
SMALLEST_CROP = 0.6  # smallest share of each side that a crop takes


def reduced(pixels_HWC: Pixels, shorter_px: int) -> Image.Image:
    """Returns the image, reduced so that its smallest crop has the shorter side `shorter_px`; never enlarged."""
    image = Image.fromarray(pixels_HWC)
    scale = min(1.0, shorter_px / SMALLEST_CROP / min(image.size))
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)


def varied(image: Image.Image, shorter_px: float, rng: np.random.Generator) -> torch.Tensor:
    """Returns a random crop HWC, uint8, with the image's aspect ratio and this shorter side in pixels.

    Half of all crops are mirrored.
    """
    scale = shorter_px / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    share = rng.uniform(SMALLEST_CROP, 1)
    left, top = (rng.uniform(0, side * (1 - share)) for side in image.size)
    box = (left, top, left + image.width * share, top + image.height * share)
    pixels_HWC = np.array(image.resize(size, Image.Resampling.BILINEAR, box))
    return torch.from_numpy(pixels_HWC[:, ::-1].copy() if rng.random() < 0.5 else pixels_HWC)


def steps(
    images: list[Image.Image], numbers: list[int], epochs: int, shorter_px: tuple[int, int], seed: int
) -> Iterator[list[Example]]:
    """Yields the images and class numbers of each step; all images of a step get one shorter side."""
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(images))
        for begin in range(0, len(order), IMAGES_PER_STEP):
            side_px = math.exp(rng.uniform(*map(math.log, shorter_px)))
            chosen = order[begin : begin + IMAGES_PER_STEP]
            yield [(varied(images[index], side_px, rng), numbers[index]) for index in chosen]


def first_weights(source: str | None, variant: str, labels: tuple[str, ...], seed: int) -> PVTv2:
    """Returns the network to train, with fresh weights or with the weights of a checkpoint.

    If the checkpoint has other labels, the weights of its head are left out.
    """
    if source is None:
        return fresh_weights(replace(VARIANTS[variant], num_classes=len(labels)), seed)
    loaded = load_checkpoint(source)
    # All norms get one epsilon, since a saved checkpoint has only one; the training adapts the weights to it.
    config = replace(loaded.config, num_classes=len(labels), embed_eps=loaded.config.block_eps)
    model = fresh_weights(config, seed)
    tensors = loaded.model.state_dict()
    if loaded.labels != labels:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}
    model.load_state_dict(tensors, strict=False)
    return model


def main() -> None:
    """Reads the flags and the images, trains, and writes the checkpoint."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="holds one folder for each class")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--variant", choices=VARIANTS, default="b0", help="where --weights is not given (default b0)")
    parser.add_argument("--weights", metavar="PATH|URI", help="a checkpoint to begin from")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--shorter-px", type=int, nargs=2, default=(96, 160), metavar=("MIN", "MAX"))
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()

    tree = [(reduced(pixels, flags.shorter_px[1]), name) for _, name, pixels in read_tree(flags.images)]
    labels = tuple(sorted({name for _, name in tree}))
    images, numbers = [image for image, _ in tree], [labels.index(name) for _, name in tree]
    if not labels:
        parser.error(f"there are no images in folders of {flags.images}.")
    model = first_weights(flags.weights, flags.variant, labels, flags.seed)
    num_steps = flags.epochs * math.ceil(len(images) / IMAGES_PER_STEP)
    fit(model, steps(images, numbers, flags.epochs, flags.shorter_px, flags.seed), num_steps, rate=RATE)
    least, largest = flags.shorter_px
    save_checkpoint(model, model.config, labels, flags.out, (least, largest))
    print(f"Trained on {len(images)} images of {len(labels)} classes: {flags.out}")


if __name__ == "__main__":
    main()
