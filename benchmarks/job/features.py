"""Feature maps of photos: images/s, the memory of each step, and the same rows in every reader.

    python -m benchmarks.job.features --photos FOLDER --weights FOLDER --out benchmarks/results/features.json

Needs the development packages: the readers are those that the tests use.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import datasets
import duckdb
import numpy as np
import pandas
import polars
import pyarrow.dataset as ds

from benchmarks.tools.machine import machine
from benchmarks.tools.process_tree import run_measured

ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--stages", default="1,2,3,4")
    parser.add_argument("--max-file-mib", type=int, default=512)
    parser.add_argument("--keep", type=Path, help="where to leave the output; default: it is removed")
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        output = flags.keep or Path(scratch) / "features"
        job = [
            sys.executable,
            "jobs/extract_features.py",
            "--input",
            str(flags.photos),
            "--weights",
            str(flags.weights),
        ]
        job += ["--output", str(output), "--stages", flags.stages, "--max-file-mib", str(flags.max_file_mib)]
        result = run_measured(job, cwd=ROOT, log=Path(scratch) / "log")
        files = sorted((output / "data").glob("*.parquet"))
        report = {
            "stages": flags.stages,
            "max_file_mib": flags.max_file_mib,
            "exit": result.exit_code,
            "rows": result.summary["listed"],
            "ok": result.summary["ok"],
            "files": len(files),
            "largest_file_mib": round(max(path.stat().st_size for path in files) / 2**20, 1),
            "output_mib": round(sum(path.stat().st_size for path in files) / 2**20, 1),
            "wall_s": result.wall_s,
            "steady_images_per_s": result.summary["steady_images_per_s"],
            "peak_mib": result.peak_mib,
            "peak_object_store_mib": result.peak_store_mib,
            "peak_step_mib": result.peak_step_mib,
            "readers": readers(files, Path(scratch)),
            "machine": machine(),
        }
    print(json.dumps(report, indent=1))
    flags.out.write_text(json.dumps(report, indent=1) + "\n")


def readers(files: list[Path], scratch: Path) -> dict[str, dict]:
    """For each reader: the rows it sees, their embeddings' sum and number of channels, and the seconds it took."""
    found = {}
    for name, read in READERS.items():
        started = time.perf_counter()
        embeddings = read([str(path) for path in files], scratch)
        found[name] = {
            "rows": len(embeddings),
            "channels": len(embeddings[0]),
            "sum": round(float(np.sum(np.asarray(embeddings, np.float64))), 2),
            "seconds": round(time.perf_counter() - started, 2),
        }
    return found


def _pyarrow(files: list[str], scratch: Path) -> list:
    column = ds.dataset(files).to_table(columns=["embedding"], filter=ds.field("status") == "ok").column(0)
    return column.combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1).tolist()


def _pandas(files: list[str], scratch: Path) -> list:
    frame = pandas.concat(pandas.read_parquet(path, columns=["status", "embedding"]) for path in files)
    return frame[frame.status == "ok"].embedding.tolist()


def _polars(files: list[str], scratch: Path) -> list:
    frame = polars.scan_parquet(files).filter(polars.col("status") == "ok").select("embedding").collect()
    return frame["embedding"].to_list()


def _duckdb(files: list[str], scratch: Path) -> list:
    query = "SELECT embedding FROM read_parquet($files) WHERE status = 'ok'"
    return [row[0] for row in duckdb.sql(query, params={"files": files}).fetchall()]


def _datasets(files: list[str], scratch: Path) -> list:
    rows = datasets.load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(scratch / "cache"), columns=["status", "embedding"]
    )
    return [row["embedding"] for row in rows if row["status"] == "ok"]


READERS: dict[str, Callable[[list[str], Path], list]] = {
    "pyarrow": _pyarrow,
    "pandas": _pandas,
    "polars": _polars,
    "duckdb": _duckdb,
    "datasets": _datasets,
}


if __name__ == "__main__":
    main()
