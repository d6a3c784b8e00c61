"""Classifies images in class folders in a plain loop, one image at a time, for comparison with the rows of a job.

python examples/predict_images.py --weights build/photos --images photos/validation --out build/validation.csv
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that a clone runs without being installed

from jobs.cli.printable import printable
from model import LoadedModel, load_checkpoint
from pipeline.chunks.size_policy import SizePolicy
from pipeline.decode.decode_image import FailedImage, decode_image

Pixels = npt.NDArray[np.uint8]


def read_tree(folder: Path) -> Iterator[tuple[Path, str, Pixels]]:
    """Yields (path, name of the class folder, HWC pixels as a job decodes them) of each image, in order of the paths.

    A file that is no image is named on stderr and left out.
    """
    for path in sorted(path for path in folder.glob("*/*") if path.is_file()):
        decoded = decode_image(path.read_bytes(), SizePolicy())
        if isinstance(decoded, FailedImage):
            print(printable(f"{path} is left out: {decoded.failure.message}"), file=sys.stderr)
        else:
            yield path, path.parent.name, decoded.pixels


@torch.inference_mode()
def predict(loaded: LoadedModel, pixels_HWC: Pixels) -> tuple[int, float]:
    """Returns (number of the best class, softmax of the class) for one image at its own size."""
    image_HWC = torch.from_numpy(pixels_HWC.copy()).float() / 255
    image_HWC = (image_HWC - torch.tensor(loaded.mean)) / torch.tensor(loaded.std)
    probabilities_K = loaded.model(image_HWC.permute(2, 0, 1)[None])[0].softmax(dim=0)
    number = int(probabilities_K.argmax())
    return number, float(probabilities_K[number])


def write_predictions(loaded: LoadedModel, folder: Path, out: Path) -> tuple[int, int]:
    """Writes a CSV with a row for each image; returns the number of images, and of images with the right class."""
    num_images, num_right = 0, 0
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "prediction", "score"])
        for path, label, pixels in read_tree(folder):
            number, score = predict(loaded, pixels)
            prediction = loaded.labels[number] if loaded.labels else str(number)
            writer.writerow([path.relative_to(folder).as_posix(), label, prediction, f"{score:.6f}"])
            num_images += 1
            num_right += prediction == label
    return num_images, num_right


def main() -> None:
    """Reads the flags, writes the CSV, and prints the number of right classes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--weights", required=True, metavar="PATH|URI")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="holds one folder for each class")
    parser.add_argument("--out", type=Path, required=True, metavar="CSV")
    flags = parser.parse_args()
    num_images, num_right = write_predictions(load_checkpoint(flags.weights), flags.images, flags.out)
    print(f"{num_right} of {num_images} right; {flags.out} has all of them")


if __name__ == "__main__":
    main()
