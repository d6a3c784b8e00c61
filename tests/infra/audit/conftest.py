"""One output of the real job, over inputs of every kind, some of them broken."""

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image

from model.checkpoints.load import save_checkpoint
from model.checkpoints.random_weights import random_weights
from model.network.config import PVTv2Config
from tests.support.ray_settings import RAY_SETTINGS
from tests.support.tars import tar_of

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT_S = 240


@dataclass(frozen=True)
class Made:
    """A folder with inputs, and the output over these inputs."""

    inputs: Path
    output: Path


def drawn(seed: int) -> bytes:
    """Returns a PNG of a random size."""
    rng = np.random.default_rng(seed)
    body = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (*rng.integers(33, 90, 2), 3), np.uint8)).save(body, "PNG")
    return body.getvalue()


def write_inputs(folder: Path) -> None:
    """Writes loose files, tars and Parquet: 41 records, and three shards that break off."""
    loose, tars, parquet = folder / "loose", folder / "tars", folder / "parquet"
    for path in (loose / "cat", loose / ".git", tars, parquet):
        path.mkdir(parents=True)
    for seed in range(12):
        (loose / "cat" / f"{seed:02d}.png").write_bytes(drawn(seed))
    for name, content in {
        "_DSC1.png": drawn(1),
        "bad.jpg": b"no image",
        "empty.jpg": b"",
        "cut.png": drawn(3)[:-40],
    }.items():
        (loose / name).write_bytes(content)
    for name in (".hidden.png", ".git/x.png", "_SUCCESS", "notes.txt"):
        (loose / name).write_bytes(drawn(2))
    members = [(f"{seed}.png", drawn(seed)) for seed in range(8)]
    first = tar_of([*members, ("0.cls", b"5"), ("0.png", drawn(9)), ("._1.png", b"mac")])
    (tars / "a.tar").write_bytes(first + tar_of([("more.png", drawn(10))]))
    (tars / "a.parquet").write_bytes(b"stands beside a tar, and is passed over")
    (tars / "b.tgz").write_bytes(gzip.compress(tar_of([(f"{seed}.png", drawn(seed)) for seed in range(5)])))
    whole = tar_of([(f"{seed}.png", drawn(seed)) for seed in range(5)])
    (tars / "cut.tar").write_bytes(whole[: whole.index(b"3.png") + 700])
    (tars / "none.tar").write_bytes(b"no tar at all" * 100)
    images = [{"bytes": drawn(seed), "path": None} for seed in range(6)]
    pq.write_table(pa.table({"image": [*images, {"bytes": None, "path": "gone.png"}]}), parquet / "p.parquet")
    (parquet / "z.parquet").write_bytes(b"no Parquet at all")


HEADS = {
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
    "jxl": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100),
    "psd": b"8BPS\0\1" + bytes(100),
    "svg": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "cr3": b"\0\0\0\x18ftypcrx " + bytes(100),
}
"""The first bytes of formats that no job decodes, by ending."""


def parquet_of(columns: dict[str, Any], **options: Any) -> bytes:
    """Returns a Parquet file of columns."""
    body = io.BytesIO()
    pq.write_table(pa.table(columns), body, **options)
    return body.getvalue()


def write_odd_inputs(folder: Path) -> None:
    """Writes images and shards that are read under the present rules of reading alone, or otherwise than before."""
    loose, tars, parquet = folder / "loose", folder / "tars", folder / "parquet"
    for path in (loose / "cat", tars, parquet):
        path.mkdir(parents=True)
    for ending, head in HEADS.items():
        (loose / f"x.{ending}").write_bytes(head)
    for number, name in enumerate(("a.pjpeg", "cat/b.jif", "c.heic", "t.tar#b.png", "50%#.png")):
        (loose / name).write_bytes(drawn(number))
    tifffile.imwrite(loose / "float.tif", np.ones((40, 40, 3), np.float32), photometric="rgb")
    (loose / "t.tar").write_bytes(tar_of([("b.png", drawn(20))]))
    members = [
        *(("a.png", drawn(0)), ("a.cls", b"4"), ("b.cls", b"2"), ("dog/e.png", drawn(1)), ("dog/f.png", drawn(2))),
        *(("dog/f.json", b'{"labels": 3.0}'), ("x.heic", HEADS["heic"]), ("y.img", b"passed over")),
    ]
    links = [
        (tarfile.LNKTYPE, "b.png", "a.png"),
        (tarfile.SYMTYPE, "dog/c.png", "../a.png"),
        (tarfile.SYMTYPE, "d.png", "no"),
    ]
    linked = tar_of(members, links)
    (tars / "links.tar").write_bytes(linked)
    (tars / "links.tgz").write_bytes(gzip.compress(linked))
    images = [drawn(seed) for seed in range(8)]
    names = pa.array([b"caf\xe9", *[b"tea"] * 7]).view(pa.string())
    (parquet / "0_none.parquet").write_bytes(parquet_of({"url": ["a"] * 9}))
    (parquet / "latin.parquet").write_bytes(parquet_of({"image": images, "label": names}))
    (parquet / "text.parquet").write_bytes(parquet_of({"image": [*images[:7], HEADS["jxl"]], "Label": ["tea"] * 8}))
    floats = pa.array([3.0, float("nan"), None, *[4.0] * 5])
    (parquet / "float.parquet").write_bytes(parquet_of({"image": images, "category": floats}))
    classes = {"info": {"features": {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}}}
    table = pa.table(
        {"image": [{"bytes": image, "path": None} for image in images], "label": [0, 1, -1, 7, 0, 0, 0, 0]}
    )
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(classes)}), parquet / "classes.parquet")
    beside = parquet / "cards" / "data"
    beside.mkdir(parents=True)
    pq.write_table(table, beside / "beside.parquet")
    (beside.parent / "dataset_infos.json").write_text(json.dumps({"default": classes["info"]}))
    claims = parquet_of({"image": pa.nulls(2**16 + 100_000, pa.binary())})
    (parquet / "claims.parquet").write_bytes(claims)
    short = parquet_of({"image": images})
    assert short.count(b"\x16\x10\x19") == 1  # the number of rows, 8, and the beginning of the list of row groups
    (parquet / "short.parquet").write_bytes(short.replace(b"\x16\x10\x19", b"\x16\x14\x19"))
    pages = bytearray(parquet_of({"image": images}, row_group_size=4, compression="none"))
    column = pq.ParquetFile(io.BytesIO(pages)).metadata.row_group(0).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    pages[start : start + 16] = b"\xff" * 16
    (parquet / "pages.parquet").write_bytes(pages)


def write_weights(folder: Path) -> None:
    """Writes a checkpoint of a real, very small PVTv2."""
    config = PVTv2Config(
        embed_dims=(8, 16, 40, 64), depths=(1, 1, 1, 1), num_heads=(1, 2, 5, 8), mlp_ratios=(2, 2, 2, 2),
        sr_ratios=(8, 4, 2, 1), num_classes=10,
    )  # fmt: skip
    save_checkpoint(random_weights(config, 0), config, tuple(f"class {number}" for number in range(10)), folder)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Returns the inputs and the output of one run. A test that changes the inputs must restore them."""
    folder = tmp_path_factory.mktemp("audited").resolve()
    write_inputs(folder / "in")
    return run_job(folder)


@pytest.fixture(scope="session")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Returns odd inputs of every kind, and the output of one run. A test must not change them."""
    folder = tmp_path_factory.mktemp("odd").resolve()
    write_odd_inputs(folder / "in")
    return run_job(folder)


def run_job(folder: Path) -> Made:
    """Runs the job over the folder `in`, and returns the output `out` beside it."""
    (folder / "weights").mkdir()
    write_weights(folder / "weights")
    (folder / "home").mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
    command = [
        *(sys.executable, "jobs/classify.py", "--input", folder / "in", "--weights", folder / "weights"),
        *("--output", folder / "out", "--rows-per-file", 4, "--max-failed-fraction", 1, "--num-actors", 1),
    ]
    done = subprocess.run(
        list(map(str, command)), cwd=ROOT, env={**kept, **RAY_SETTINGS, "HOME": str(folder / "home")},
        capture_output=True, text=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Made(folder / "in", folder / "out")
