"""Writes a checkpoint with random weights, in transformers' format, for trying the jobs without a trained model.

python examples/random_checkpoint.py --variant b0 --out build/random-b0
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that a clone runs without being installed

from model import VARIANTS, LabelsError, random_weights, read_labels, save_checkpoint


def main() -> None:
    """Parses the flags, draws the weights, and writes them."""
    parser = argparse.ArgumentParser(description="Write a PVTv2 checkpoint with random weights.")
    parser.add_argument("--variant", choices=VARIANTS, default="b0")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same file (default 0)")
    parser.add_argument("--num-classes", type=int, help="default: one per label, or 1000; 0 leaves the head out")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="one label per line, or JSON")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()

    try:
        labels = read_labels(args.labels) if args.labels else None
    except LabelsError as error:
        parser.error(str(error))
    num_classes = args.num_classes if args.num_classes is not None else len(labels or range(1000))
    if num_classes < 0:
        parser.error(f"--num-classes must be 0 or more, not {num_classes}.")
    if labels is not None and num_classes != len(labels):
        parser.error(f"--num-classes {num_classes} does not fit the {len(labels)} labels in {args.labels}.")
    config = replace(VARIANTS[args.variant], num_classes=num_classes)
    save_checkpoint(random_weights(config, args.seed), config, labels, args.out)
    print(
        f"Wrote {args.variant} with {num_classes} classes to {args.out}. "
        f"Its weights are RANDOM (seed {args.seed}): what it predicts means nothing."
    )


if __name__ == "__main__":
    main()
