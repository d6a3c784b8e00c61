"""Chunks as they travel from step to step, of made-up pixels."""

import numpy as np
import pyarrow as pa

from pipeline.chunks.chunk import Chunk, Header
from pipeline.chunks.columns import PAYLOAD_COLUMNS, record_schema
from pipeline.chunks.measures import NOTHING


def pixels(width: int, height: int, seed: int = 0) -> np.ndarray:
    """An image of noise: HWC uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def decoded_chunk(*images: np.ndarray | str) -> Chunk:
    """A chunk as it leaves the decode step; in place of an image the code with which it failed."""
    rows, payload = [], []
    for row, image in enumerate(images):
        failed = image if isinstance(image, str) else None
        height, width = (None, None) if failed else image.shape[:2]
        rows.append(
            {
                "image_id": f"i{row}", "shard": "s", "key": str(row), "row": row,
                "status": "failed" if failed else "ok",
                "error_code": failed, "error_message": "broken" if failed else None, "width": width, "height": height,
                "net_width": width, "net_height": height, "scale": None if failed else 1.0, "caption": "kept",
                "payload_offset": sum(map(len, payload)), "payload_length": 0 if failed else image.nbytes,
            }
        )  # fmt: skip
        payload += [] if failed else [image.tobytes()]
    header = Header(
        shard="s", name="s", hash16="0123456789abcdef", source_etag="e", slice=0, first_row=0, num_rows=len(rows),
        slice_first_row=0, slice_rows=len(rows), end=True, ignored=0,
    )  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=pa.schema([*record_schema(("caption",)), *PAYLOAD_COLUMNS]))
    chunk = Chunk(
        header=header, attempt="aaaaaaaa", pass_number=1, measured={**NOTHING, "decode_s": 0.5},
        rows=table, payload=pa.py_buffer(b"".join(payload)),
    )  # fmt: skip
    return Chunk.from_table(chunk.to_table())  # as Ray hands it over: views on memory that is not to be written to
