"""Draws sample images and packs them into WebDataset tars: many sizes and formats, and a few broken on purpose.

python examples/sample_shards.py --out build/samples --shards 3 --images 32
"""

import argparse
import io
import math
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw

SHAPES = ("disc", "ring", "square", "stripes", "star")
FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
# Sides from a thumbnail's to a photo's, most of them none that a network was trained on; 20 is under the smallest side.
SIDES = (20, 48, 97, 160, 224, 229, 333, 375, 500, 640)


def draw(shape: str, width: int, height: int, rng: random.Random) -> Image.Image:
    """An RGB image of one shape on a plain ground, in random colours."""
    ground, ink = (tuple(rng.randrange(low, low + 120) for _ in range(3)) for low in (120, 10))
    image = Image.new("RGB", (width, height), ground)
    pen = ImageDraw.Draw(image)
    x, y, radius = width / 2, height / 2, min(width, height) * rng.uniform(0.25, 0.45)
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "disc":
        pen.ellipse(box, fill=ink)
    elif shape == "ring":
        pen.ellipse(box, outline=ink, width=max(1, int(radius / 3)))
    elif shape == "square":
        pen.rectangle(box, fill=ink)
    elif shape == "stripes":
        step = max(2, int(radius / 4))
        for left in range(0, width, 2 * step):
            pen.rectangle((left, 0, left + step, height), fill=ink)
    else:
        points = [
            (x + r * math.sin(i * math.pi / 5), y - r * math.cos(i * math.pi / 5))
            for i, r in enumerate([radius, radius / 2.5] * 5)
        ]
        pen.polygon(points, fill=ink)
    return image


def broken_members(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """(ending, bytes) of files that no decoder can read to their end."""
    whole = io.BytesIO()
    draw("disc", 200, 150, rng).save(whole, "JPEG")
    yield "jpg", whole.getvalue()[: len(whole.getvalue()) // 2]
    yield "png", b""
    yield "jpg", b"this is a text whose name says that it is a photo"


def write_shard(path: Path, num_images: int, num_broken: int, rng: random.Random) -> None:
    """One tar: each image with a `.cls` sidecar that holds its shape's name."""
    broken = list(broken_members(rng))[:num_broken]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for index in range(num_images + len(broken)):
            shape = rng.choice(SHAPES)
            if index % 11 == 5 and broken:
                ending, data = broken.pop()
            else:
                ending = rng.choice(tuple(FORMATS))
                body = io.BytesIO()
                draw(shape, rng.choice(SIDES), rng.choice(SIDES), rng).save(body, FORMATS[ending])
                data = body.getvalue()
            for name, content in ((f"{index:05d}.{ending}", data), (f"{index:05d}.cls", shape.encode())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def write_shards(folder: Path, num_shards: int, images_per_shard: int, seed: int = 0) -> None:
    """The sample shards; the same seed gives the same bytes. The first shard has the broken files."""
    rng = random.Random(seed)
    for index in range(num_shards):
        write_shard(folder / f"sample-{index:03d}.tar", images_per_shard, 3 if index == 0 else 0, rng)


def main() -> None:
    """Reads the flags and writes the shards."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--images", type=int, default=32, help="readable images in a shard")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    write_shards(flags.out, flags.shards, flags.images, flags.seed)
    print(f"{flags.shards} shards in {flags.out}")


if __name__ == "__main__":
    main()
