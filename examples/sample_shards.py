"""Packs handwritten digits into WebDataset tars: many sizes and formats, with true labels, and a few broken files.

The digits are those that the training of weights/digits never used.

python examples/sample_shards.py --out build/samples --shards 3 --images 48
"""

import argparse
import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that a clone runs without being installed

from examples.digits import BANDS, LABELS, draw_size, load_digits, render, split

FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
# Smallest and largest shorter side of images that are too small for the network; the job enlarges these images.
TINY = (20, 31)
BROKEN_EVERY = 11

Member = tuple[str, bytes, str]
"""Ending, contents and label of one image."""


def members(num_images: int, rng: np.random.Generator) -> Iterator[Member]:
    """Yields held-out digits in random formats and sizes; no digit comes twice before all have come once."""
    digits, labels = load_digits()
    _, held_out = split(labels)
    queue: list[int] = []
    for count in range(num_images):
        queue = queue or rng.permutation(held_out).tolist()
        index = queue.pop()
        width, height = draw_size((TINY, *BANDS)[count % 5], rng)
        ending = str(rng.choice(list(FORMATS)))
        image = render(digits[index], width, height, rng)
        yield ending, _encoded(image, FORMATS[ending]), LABELS[labels[index]]


def broken_members(rng: np.random.Generator) -> list[Member]:
    """Returns files that no decoder can read to the end."""
    digits, labels = load_digits()
    whole = _encoded(render(digits[0], 200, 150, rng), "JPEG")
    label = LABELS[labels[0]]
    return [
        ("jpg", whole[: len(whole) // 2], label),
        ("png", b"", label),
        ("jpg", b"this is a text whose name says that it is a photo", label),
    ]


def write_shards(folder: Path, num_shards: int, images_per_shard: int, seed: int = 0) -> None:
    """Writes the sample shards; the same seed gives the same bytes.

    The first shard contains the broken files beside its images.
    """
    rng = np.random.default_rng(seed)
    broken = broken_members(rng)
    images = list(members(num_shards * images_per_shard, rng))
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(num_shards):
        contents = images[shard * images_per_shard : (shard + 1) * images_per_shard]
        if shard == 0:
            for number, member in enumerate(broken, start=1):
                contents.insert(number * BROKEN_EVERY, member)
        _write_tar(folder / f"sample-{shard:03d}.tar", contents)


def _write_tar(path: Path, contents: list[Member]) -> None:
    """Writes one tar, in which each image has a `.cls` sidecar with its label."""
    with tarfile.open(path, "w") as tar:
        for index, (ending, data, label) in enumerate(contents):
            for name, content in ((f"{index:05d}.{ending}", data), (f"{index:05d}.cls", label.encode())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def _encoded(image: Image.Image, image_format: str) -> bytes:
    body = io.BytesIO()
    image.save(body, image_format)
    return body.getvalue()


def main() -> None:
    """Reads the flags and writes the shards."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--images", type=int, default=50, help="readable images in a shard")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    write_shards(flags.out, flags.shards, flags.images, flags.seed)
    print(f"{flags.shards} shards in {flags.out}")


if __name__ == "__main__":
    main()
