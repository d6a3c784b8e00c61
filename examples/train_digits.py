"""Trains the small PVTv2 of weights/digits on handwritten digits drawn at mixed sizes; takes minutes on two cores.

python examples/train_digits.py --out build/digits
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that a clone runs without being installed

from examples.digits import BANDS, LABELS, Indexes, Pixels, draw_size, load_digits, render, split
from examples.training import Example, fit, fresh_weights
from model import PackedPVTv2, PVTv2, PVTv2Config, load_checkpoint, save_checkpoint

CONFIG = PVTv2Config(
    embed_dims=(24, 48, 96, 128),
    depths=(1, 2, 2, 2),
    num_heads=(1, 2, 4, 8),
    mlp_ratios=(4, 4, 4, 4),
    sr_ratios=(8, 4, 2, 1),
    linear=True,
    num_classes=len(LABELS),
)
# Each phase: the share of the steps at which the phase ends, and the groups of images in each of its steps. A group is
# the range of the shorter side and the number of images, which all get one size. The network first learns digits from
# small images, which are cheap, and then learns that digits may be large.
PHASES = (
    (0.30, (((32, 47), 48),)),
    (0.55, (((32, 63), 24), ((64, 127), 16))),
    (1.00, (((32, 63), 12), ((64, 127), 10), ((128, 255), 6), ((256, 512), 4))),
)
RATE = 2e-3


def steps(digits: Pixels, labels: Indexes, num_steps: int, seed: int) -> Iterator[list[Example]]:
    """Yields the images of each step; no digit comes twice before all have come once."""
    rng = np.random.default_rng(seed)
    queue: list[int] = []
    for step in range(num_steps):
        examples: list[Example] = []
        for sides, count in next(groups for until, groups in PHASES if step < until * num_steps):
            width, height = draw_size(sides, rng)
            for _ in range(count):
                queue = queue or rng.permutation(len(labels)).tolist()
                index = queue.pop()
                image = render(digits[index], width, height, rng)
                examples.append((torch.from_numpy(np.array(image)), int(labels[index])))
        yield examples


def accuracies(model: PVTv2, digits: Pixels, labels: Indexes, seed: int) -> list[float]:
    """Returns for each band the share of digits with the right class, each digit drawn once at a size of the band."""
    rng = np.random.default_rng(seed)
    packed = PackedPVTv2(model)
    shares = []
    for band in BANDS:
        num_right = 0
        for digit, label in zip(digits, labels, strict=True):
            image = torch.from_numpy(np.array(render(digit, *draw_size(band, rng), rng)))
            logits = packed.run([image]).logits
            num_right += int(logits.argmax()) == label
        shares.append(num_right / len(labels))
    return shares


def main() -> None:
    """Reads the flags, trains, writes the checkpoint, and prints its accuracy."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--validate",
        action="store_true",
        help="to choose settings: train on four fifths of the training digits and measure on the fifth",
    )
    flags = parser.parse_args()

    digits, labels = load_digits()
    training, measured = split(labels)
    if flags.validate:
        inner, outer = split(labels[training])
        training, measured = training[inner], training[outer]

    begin = time.monotonic()
    model = fresh_weights(CONFIG, flags.seed)
    fit(model, steps(digits[training], labels[training], flags.steps, flags.seed), flags.steps, rate=RATE)
    seconds = time.monotonic() - begin
    save_checkpoint(model.half(), CONFIG, LABELS, flags.out, (BANDS[0][0], BANDS[-1][1]))
    model = load_checkpoint(flags.out).model
    shares = accuracies(model, digits[measured], labels[measured], seed=flags.seed + 1)
    print(f"Trained on {len(training)} digits in {seconds:.0f} s. {len(measured)} others, drawn once in every band:")
    for (first, last), share in zip(BANDS, shares, strict=True):
        print(f"  shorter side {first:>3} to {last:>3} px: {share:.2%} right")
    print(f"  all: {np.mean(shares):.2%} right")


if __name__ == "__main__":
    main()
