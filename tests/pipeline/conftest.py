"""Makers of small real things: encoded images, chunks, planned shards."""

import io
import tarfile
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline.chunk import STEPS, Chunk, Header
from pipeline.config import InputConfig
from pipeline.infer import CLASSIFY_COLUMNS
from pipeline.read import ReadConfig
from pipeline.schema import record_schema
from pipeline.sizes import SizePolicy


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """(width, height, seed, format) -> an encoded image of noise."""

    def make(width: int = 40, height: int = 36, seed: int = 0, image_format: str = "PNG") -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
        body = io.BytesIO()
        Image.fromarray(pixels).save(body, image_format)
        return body.getvalue()

    return make


@pytest.fixture
def make_tar() -> Callable[[dict[str, bytes]], bytes]:
    """{member name: content} -> a tar."""

    def make(members: dict[str, bytes]) -> bytes:
        body = io.BytesIO()
        with tarfile.open(fileobj=body, mode="w") as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return body.getvalue()

    return make


@pytest.fixture
def read_config() -> Callable[..., ReadConfig]:
    """(changes) -> what the read step needs, with small slices."""

    def make(**changes) -> ReadConfig:
        config = ReadConfig(
            input=InputConfig(uris=("/nowhere",)), rows_per_file=4, max_file_bytes=2**30, row_bytes=256,
            sizes=SizePolicy(), pass_number=1, last_pass=False,
        )  # fmt: skip
        return replace(config, **changes)

    return make


@pytest.fixture
def answered_chunk() -> Callable[..., Chunk]:
    """(first row, rows, ...) -> a chunk as it leaves the infer step."""

    def make(
        first_row: int, num_rows: int, *, slice_rows: int | None = None, end: bool = False, slice_number: int = 0,
        slice_first_row: int = 0, failed: tuple[int, ...] = (), attempt: str = "aaaaaaaa", pass_number: int = 1,
    ) -> Chunk:  # fmt: skip
        rows = []
        for row in range(first_row, first_row + num_rows):
            bad = row in failed
            rows.append(
                {
                    "image_id": f"s3://b/x.tar#{row}", "shard": "s3://b/x.tar", "key": str(row), "row": row,
                    "source_etag": "e", "status": "failed" if bad else "ok", "encoded_bytes": 100,
                    "error_code": "decode.corrupt" if bad else None, "error_message": "broken" if bad else None,
                    "width": 40, "height": 30, "net_width": None if bad else 40, "net_height": None if bad else 30,
                    "scale": None if bad else 1.0, "label_id": None if bad else 3, "label": None,
                    "score": None if bad else 0.5, "topk_ids": None if bad else [3, 1],
                    "topk_scores": None if bad else [0.5, 0.25], "macs": 0 if bad else 1000,
                }
            )  # fmt: skip
        schema = pa.schema([*record_schema(()), *CLASSIFY_COLUMNS, pa.field("macs", pa.int64())])
        header = Header(
            shard="s3://b/x.tar", name="x", hash16="0123456789abcdef", source_etag="e", slice=slice_number,
            first_row=first_row, num_rows=num_rows, slice_first_row=slice_first_row, slice_rows=slice_rows, end=end,
            ignored=0,
        )  # fmt: skip
        return Chunk(
            header=header, attempt=attempt, pass_number=pass_number, seconds=dict.fromkeys(STEPS, 0.5),
            rows=pa.Table.from_pylist(rows, schema=schema), payload=pa.py_buffer(b""),
        )  # fmt: skip

    return make
