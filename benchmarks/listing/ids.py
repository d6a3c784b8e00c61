"""Measures how long it takes to find ids that several rows of an output have, and how much memory, against DuckDB.

python -m benchmarks.listing.ids --rows 10000000 --folder DIR --out benchmarks/results/ids.json
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.tools.machine import machine
from pipeline.account.totals import Totals
from pipeline.output.footer import Footer
from pipeline.output.ids import find_doubled_ids
from pipeline.output.layout import SliceName
from pipeline.output.published import PublishedFile, list_files
from pipeline.store.config import StoreConfig
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri

_ROWS_PER_FILE = 4096


def make_output(folder: Path, num_rows: int) -> None:
    """Writes output files with the ids of `num_rows` members of tars, 100,000 in each tar; no other columns."""
    (folder / "data").mkdir(parents=True)
    for number, start in enumerate(range(0, num_rows, _ROWS_PER_FILE)):
        rows = range(start, min(start + _ROWS_PER_FILE, num_rows))
        ids = [f"s3://bucket/data/train-{row // 100_000:05d}.tar#n{row % 1000:08d}/{row:09d}.jpg" for row in rows]
        pq.write_table(pa.table({"image_id": ids}), folder / "data" / _name(number), compression="zstd")


def ours(folder: Path) -> int:
    """Returns the number of doubled rows by the check of the job."""
    output = StorePath(canonical_uri(str(folder)), StoreConfig())
    found = find_doubled_ids(output, [_published(name, info.etag) for name, info in list_files(output).items()])
    return 0 if found is None else found.rows


def duckdb_count(folder: Path) -> int:
    """Returns the number of doubled rows by DuckDB with 1 GB of memory and two threads."""
    import duckdb

    connection = duckdb.connect(config={"memory_limit": "1GB", "threads": 2, "temp_directory": str(folder / "tmp")})
    files = str(folder / "data" / "*.parquet")
    groups = "SELECT count(*) AS n FROM read_parquet(?) GROUP BY image_id HAVING n > 1"
    query = f"SELECT coalesce(sum(n - 1), 0) FROM ({groups})"
    return int(connection.execute(query, [files]).fetchall()[0][0])


WAYS: dict[str, Callable[[Path], int]] = {"ours": ours, "duckdb": duckdb_count}


def _name(number: int) -> str:
    return str(SliceName("x", f"{number:016x}", 0, True))


def _published(name: str, etag: str) -> PublishedFile:
    footer = Footer(
        shard="s", hash16="h", slice=0, end=True, source_etag=None, first_row=0, last_row=0, identity="", run_id="",
        attempt="", nonce="", totals=Totals(listed=_ROWS_PER_FILE, ok=_ROWS_PER_FILE),
    )  # fmt: skip
    return PublishedFile.of(name, etag, footer)


def measure(way: str, folder: Path) -> dict[str, float]:
    """Runs one way in a process of its own; returns its seconds and its peak memory in MiB."""
    command = [sys.executable, "-m", "benchmarks.listing.ids", "--folder", folder, "--way", way]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def main() -> None:
    """Makes the output if it is missing, runs both ways in turn, and prints and keeps the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, required=True, help="where the output is made, and used again")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.way:
        began = time.perf_counter()
        doubled = WAYS[flags.way](flags.folder)
        seconds = time.perf_counter() - began
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "peak_mib": peak_mib, "doubled": doubled}))
        return
    if not flags.folder.exists():
        make_output(flags.folder, flags.rows)
    rounds = [{way: measure(way, flags.folder) for way in WAYS} for _ in range(flags.rounds)]
    result = {"machine": machine(), "rows": flags.rows, "rounds": rounds}
    print(json.dumps(result, indent=1))
    if flags.out:
        flags.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
