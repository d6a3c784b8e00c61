"""One data set as a folder, as tar shards and as Parquet on an S3 server: equal rows, images/s, peak memory.

    python -m benchmarks.job.inputs --photos FOLDER --weights FOLDER --out benchmarks/results/inputs.json

Needs the development packages: the S3 server is the one that the tests use.
"""

import argparse
import io
import json
import os
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.tools.machine import machine
from benchmarks.tools.photos import write_tars
from benchmarks.tools.process_tree import run_measured
from tests.support.s3_server import running_s3

ROOT = Path(__file__).resolve().parent.parent.parent

IMAGES_PER_SHARD = 200
ENDINGS = (".jpg", ".jpeg", ".png", ".webp")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    paths = sorted(path for path in flags.photos.rglob("*") if path.suffix.lower() in ENDINGS)
    photos = [(str(path.relative_to(flags.photos)), path.read_bytes()) for path in paths]
    with tempfile.TemporaryDirectory() as scratch, running_s3(Path(scratch) / "s3") as server:
        folder = Path(scratch)
        write_tars(folder / "tars", photos, IMAGES_PER_SHARD)
        with closing(server.client()) as client:
            client.create_bucket(Bucket="photos")
            for index, body in enumerate(parquets(photos)):
                client.put_object(Bucket="photos", Key=f"parquet/{index:03d}.parquet", Body=body)
        inputs = {"folder": str(flags.photos), "tar": str(folder / "tars"), "parquet on S3": "s3://photos/parquet"}
        env = {**os.environ, **server.env}
        rows = []
        for name, uri in inputs.items():
            output = folder / f"out-{name.replace(' ', '-')}"
            job = [sys.executable, "jobs/classify.py", "--input", uri, "--weights", str(flags.weights)]
            result = run_measured([*job, "--output", str(output)], cwd=ROOT, env=env, log=folder / "log")
            rows.append({"input": name, **described(result, output)})
            print(rows[-1], flush=True)
        outputs = [folder / f"out-{name.replace(' ', '-')}" for name in inputs]
        differences = {
            names: compare(outputs[0], other) for names, other in zip(list(inputs)[1:], outputs[1:], strict=True)
        }
    report = {"rows": rows, "differences from folder": differences, "machine": machine()}
    print(json.dumps(report["differences from folder"]))
    flags.out.write_text(json.dumps(report, indent=1) + "\n")


def parquets(photos: list[tuple[str, bytes]]) -> list[bytes]:
    """The same as Hugging Face writes them."""
    bodies = []
    for start in range(0, len(photos), IMAGES_PER_SHARD):
        part = photos[start : start + IMAGES_PER_SHARD]
        images = [{"bytes": data, "path": name} for name, data in part]
        body = io.BytesIO()
        table = pa.table({"image": images, "label": [Path(name).parent.name for name, _ in part]})
        pq.write_table(table, body, row_group_size=100)
        bodies.append(body.getvalue())
    return bodies


def described(result, output: Path) -> dict:
    (counts,) = duckdb.sql(
        f"SELECT count(*), count(DISTINCT image_id), count(DISTINCT label_id) FROM '{output}/data/*.parquet'"
    ).fetchall()
    return {
        "exit": result.exit_code,
        "rows": counts[0],
        "ids": counts[1],
        "labels": counts[2],
        "wall_s": result.wall_s,
        "images_per_s": round(result.summary["images_per_s"], 2),
        "steady_images_per_s": round(result.summary["steady_images_per_s"], 2),
        "peak_mib": result.peak_mib,
        "peak_object_store_mib": result.peak_store_mib,
    }


def compare(one: Path, other: Path) -> dict:
    """Rows that differ, matched by position: all three hold the photos in the order of their paths."""
    numbered = "SELECT *, row_number() OVER (ORDER BY shard, row) AS n FROM '{}/data/*.parquet'"
    ((pairs, differing, score),) = duckdb.sql(
        f"""
        SELECT count(*),
               count(*) FILTER (a.status != b.status OR a.width != b.width OR a.height != b.height
                   OR a.label_id != b.label_id OR a.encoded_bytes != b.encoded_bytes OR a.true_label != b.true_label),
               max(abs(a.score - b.score))
        FROM ({numbered.format(one)}) a JOIN ({numbered.format(other)}) b USING (n)
        """
    ).fetchall()
    return {"pairs": pairs, "differing": differing, "max_score_difference": score}


if __name__ == "__main__":
    main()
