"""What keeping a labelled data set costs: its updates and exports over an output of made-up rows, on the local disk.

    python -m benchmarks.job.dataset --images 1000000 --out benchmarks/results/dataset.json

Rows are those of loose images in files of 4,096, of 1,000 classes. Timed are the first update, one with nothing to do,
one after a file of rows was exchanged, one under another threshold, and each export.
"""

import argparse
import io
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.tools.machine import command, machine, versions
from pipeline.chunks.columns import CLASSIFY_COLUMNS, output_schema
from pipeline.dataset.dataset_file import labels_uri, published_rows
from pipeline.dataset.file_exports import FILES
from pipeline.dataset.policy import Policy
from pipeline.dataset.update import DatasetConfig, update_dataset
from pipeline.output.layout import DATA, hash16
from pipeline.output.published import PublishedFile
from pipeline.store.storage import StoreConfig, head, put
from pipeline.store.uris import join_uri

STORE = StoreConfig()
LABELS = tuple(f"class number {number}" for number in range(1000))
ROWS = 4096


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    with TemporaryDirectory() as folder:
        output = f"file://{folder}/out"
        files = [write_file(output, number, seed=number) for number in range(flags.images // ROWS)]
        config, seconds = DatasetConfig(), {}

        def update(name: str, config: DatasetConfig = config) -> Any:
            started = time.perf_counter()
            made = update_dataset(output, STORE, files, LABELS, config, name.replace(" ", "-"), lambda: None)
            seconds[name] = time.perf_counter() - started
            return made

        update("first update")
        update("nothing to do")
        files[0] = write_file(output, 0, seed=-1)
        update("one file exchanged")
        made = update("another threshold", DatasetConfig(policy=Policy(accept_score=0.6)))
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        classes = made.published.footer.classes
        sizes = {}
        for name, export in FILES.items():
            sizes[name], seconds[f"export {name}"] = timed(
                lambda make=export.make: make(lambda: published_rows(made.published, STORE), classes, ())
            )
        info = head(labels_uri(output), STORE)
    assert info is not None
    result = {
        "images": len(files) * ROWS,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "peak_mib_of_updates": round(peak_mib),
        "labels_bytes_per_image": round(info.size / (len(files) * ROWS), 1),
        "export_bytes_per_image": {name: round(size / (len(files) * ROWS), 1) for name, size in sizes.items()},
        "machine": machine(),
        "versions": versions(("pyarrow", "duckdb")),
        "command": command("benchmarks.job.dataset", sys.argv[1:]),
    }
    print(json.dumps(result, indent=1))
    flags.out.write_text(json.dumps(result, indent=1) + "\n")


def timed(make: Callable[[], memoryview]) -> tuple[int, float]:
    """Bytes of what is made, and the seconds that it took."""
    started = time.perf_counter()
    return len(make()), time.perf_counter() - started


def write_file(output: str, number: int, seed: int) -> PublishedFile:
    """An output file of loose images."""
    rng = np.random.default_rng(seed + 10)
    ids, shard = rng.integers(0, len(LABELS), ROWS), f"files:{hash16(str(number))}"
    keys = [f"photos/{number:06d}/{row:05d}-some-name.jpg" for row in range(ROWS)]
    columns = {
        "image_id": [f"s3://some-bucket/{key}" for key in keys],
        "shard": [shard] * ROWS,
        "key": keys,
        "row": range(ROWS),
        "source_etag": [f'"{value:032x}"' for value in rng.integers(0, 2**62, ROWS).tolist()],
        "status": ["ok"] * ROWS,
        "width": rng.integers(100, 4000, ROWS),
        "height": rng.integers(100, 4000, ROWS),
        "label_id": ids,
        "label": [LABELS[index] for index in ids],
        "score": rng.random(ROWS, np.float32),
    }
    schema = output_schema(CLASSIFY_COLUMNS, ())
    arrays = [pa.array(columns.get(field.name, [None] * ROWS), field.type) for field in schema]
    body = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), body, compression="zstd")
    name = f"photos-{hash16(str(number))}-00000-end.parquet"
    etag = put(join_uri(output, DATA, name), body.getvalue(), STORE)
    return PublishedFile(
        file=name, etag=etag, shard=shard, hash16=hash16(str(number)), slice=0, end=True, source_etag="e", rows=ROWS,
        ok=ROWS, failed=0, first_row=0, last_row=ROWS - 1, pruned=(), emptied=False, identity="", run_id="",
        footer_json="{}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
