"""The inputs of the drills: tars, a Parquet file and loose files of tiny images, a few of them broken, in two versions.

A drill may take any object in either version, or none; what a row must say follows from its object's version alone.
"""

import io
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.jobs.conftest import photo

VERSIONS = (1, 2)
# Object -> records in each version.
_TARS = {"t0.tar": (20, 9), "t1.tar": (14, 22), "t2.tar": (17, 17), "t3.tar": (6, 6)}
_PARQUETS = {"p0.parquet": (26, 19)}
_LOOSE = tuple(f"loose/{index:02d}.png" for index in range(24))
# What the first night does not have yet.
LATER = ("t3.tar", "loose/03.png", "loose/11.png", "loose/23.png")
NAMES = (*_TARS, *_PARQUETS, *_LOOSE)

State = Mapping[str, int]
FIRST_NIGHT: State = {name: 1 for name in NAMES if name not in LATER}


def num_records(name: str, version: int) -> int:
    """How many rows an object's version has."""
    return {**_TARS, **_PARQUETS}.get(name, (1, 1))[version - 1]


def object_bytes(name: str, version: int) -> bytes:
    """The content of an object in one of its versions."""
    first = 1000 * (NAMES.index(name) + 100 * version)
    images = [_image(first + index) for index in range(num_records(name, version))]
    if name in _TARS:
        return _tar(images)
    return _parquet(images) if name in _PARQUETS else images[0]


def _image(seed: int) -> bytes:
    """Mostly a photo; every ninth is none, or breaks off."""
    if seed % 9 != 5:
        return photo(seed)
    return photo(seed)[:-60] if seed % 2 else b"no image at all"


def _tar(images: Sequence[bytes]) -> bytes:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as tar:
        for index, image in enumerate(images):
            for name, content in ((f"{index:03d}.png", image), (f"{index:03d}.cls", str(index % 10).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return body.getvalue()


def _parquet(images: Sequence[bytes]) -> bytes:
    body = io.BytesIO()
    table = pa.table({"png": pa.array(images, pa.binary()), "label": [index % 10 for index in range(len(images))]})
    pq.write_table(table, body, row_group_size=8)
    return body.getvalue()


def upload(client: Any, bucket: str, prefix: str, state: State, before: State | None = None) -> None:
    """Makes the objects below a prefix those of a state, where they were those of another."""
    before = before or {}
    for name in before.keys() - state.keys():
        client.delete_object(Bucket=bucket, Key=f"{prefix}/{name}")
    for name, version in state.items():
        if before.get(name) != version:
            client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=object_bytes(name, version))
