"""Draws JPEGs of smooth shapes with grain, which decode and compress about as photos do."""

import csv
import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

# (width, height) as they occur among photos of a well-known data set; `read_sizes` reads more from a file.
COMMON_SIZES = [(500, 375)] * 6 + [(375, 500)] * 2 + [(500, 333)] * 3 + [(640, 480), (333, 500), (400, 300), (800, 600)]


def read_sizes(path: Path | None) -> list[tuple[int, int]]:
    """Returns (width, height) once for each occurrence, from a CSV with width,height,count, or the common sizes."""
    if path is None:
        return COMMON_SIZES
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return [(int(row["width"]), int(row["height"])) for row in rows for _ in range(int(row["count"]))]


def photo(width: int, height: int, rng: np.random.Generator) -> bytes:
    """Returns one JPEG, of about a fifth of a byte a pixel."""
    coarse = rng.integers(0, 256, (max(2, height // 40), max(2, width // 40), 3), np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    image = image.filter(ImageFilter.GaussianBlur(1))
    grain = rng.normal(0, 6, (height, width, 1))
    pixels = np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8)
    body = io.BytesIO()
    Image.fromarray(pixels).save(body, "JPEG", quality=85)
    return body.getvalue()


def photos(count: int, sizes: list[tuple[int, int]], seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yields (name, JPEG) of `count` photos whose sizes are drawn from `sizes`."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        width, height = sizes[rng.integers(len(sizes))]
        yield f"{index:06d}.jpg", photo(width, height, rng)


def write_photos(folder: Path, count: int, sizes: list[tuple[int, int]], seed: int = 0) -> None:
    """Writes `count` photos as loose files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in photos(count, sizes, seed):
        (folder / name).write_bytes(data)


def write_tars(folder: Path, images: Sequence[tuple[str, bytes]], images_per_shard: int) -> None:
    """Writes WebDataset shards of (path, JPEG); the class of an image is the name of its folder, if it is in one."""
    folder.mkdir(parents=True)
    for start in range(0, len(images), images_per_shard):
        with tarfile.open(folder / f"{start // images_per_shard:03d}.tar", "w") as tar:
            for name, data in images[start : start + images_per_shard]:
                stem, ending = name.rsplit(".", 1)
                members = [(f"{stem}.{ending}", data)]
                if label := Path(name).parent.name:
                    members.append((f"{stem}.cls", label.encode()))
                for member, content in members:
                    info = tarfile.TarInfo(member)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
