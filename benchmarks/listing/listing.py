"""Measures the listing of stores: time and peak memory for a million objects, and one thread against many.

    python -m benchmarks.listing.listing --out benchmarks/results/listing.json

The benchmark lists computed stores without requests, computed stores that take 50 ms a page, and an S3 server on the
loopback. The benchmark needs the development packages, since the tests use the same S3 server.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.listing.fake_lister import FakePages, image_folders, tar_folder
from benchmarks.tools.machine import machine
from pipeline.store import remote
from pipeline.store.store_path import StorePath
from tests.support.s3_server import running_s3

ROOT = Path(__file__).resolve().parent.parent.parent

ROUNDS = 3
MILLION = 1_000_000
# Images, folders of images, tars, True for a store without an order, seconds a page, threads.
CASES = {
    "10 million images in 1,000 folders, 1 million tars": (10 * MILLION, 1000, MILLION, False, 0.0, 16),
    "10 million images in one folder": (10 * MILLION, 1, 0, False, 0.0, 16),
    "10 million images in one folder, in no order": (10 * MILLION, 1, 0, True, 0.0, 16),
    "400,000 images in 50 folders, 50 ms a page, one thread": (400_000, 50, 0, False, 0.05, 1),
    "400,000 images in 50 folders, 50 ms a page, 16 threads": (400_000, 50, 0, False, 0.05, 16),
}
S3_OBJECTS, S3_FOLDERS = 20_000, 50


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--case", choices=CASES, help="only this one, here; prints its figures")
    parser.add_argument("--s3-threads", type=int, help="lists s3://listing once, here; prints its figures")
    flags = parser.parse_args()
    if flags.case:
        print(json.dumps(run_case(*CASES[flags.case])))
    elif flags.s3_threads:
        remote.LISTING_THREADS = flags.s3_threads
        print(json.dumps(measured(StorePath("s3://listing").list())))
    else:
        report = {"made up": {name: child("--case", name) for name in CASES}, "S3": against_s3(), "machine": machine()}
        slow, fast = (report["made up"][name]["wall_s"] for name in list(CASES)[-2:])
        report["50 ms a page: 16 threads over one"] = round(slow / fast, 2)
        flags.out.write_text(json.dumps(report, indent=1) + "\n")


def run_case(images: int, folders: int, tars: int, is_shuffled: bool, page_s: float, threads: int) -> dict[str, Any]:
    made_up = [*image_folders(images, folders), *([tar_folder(tars)] if tars else [])]
    pages = FakePages(made_up, is_shuffled=is_shuffled, page_s=page_s, threads=threads)
    return measured(pages.list_objects(StorePath("s3://made-up")))


def measured(objects: Any) -> dict[str, Any]:
    """Returns objects, seconds and peak memory of a listing.

    No object is kept, as in the planner.
    """
    before_mib, started, cpu = peak_mib(), time.perf_counter(), time.process_time()
    last_uri, count = "", 0
    for info in objects:
        if info.uri <= last_uri:
            raise RuntimeError(f"{info.uri} came after {last_uri}")
        last_uri, count = info.uri, count + 1
    wall_s = time.perf_counter() - started
    return {
        "objects": count,
        "wall_s": round(wall_s, 2),
        "wall_s_per_million": round(wall_s / count * MILLION, 2),
        "cpu_s_per_million": round((time.process_time() - cpu) / count * MILLION, 2),
        "peak_mib": round(peak_mib()),
        "peak_mib_before": round(before_mib),
    }


def against_s3() -> dict[str, Any]:
    """Measures listings of one bucket by one thread and by 16 threads, in turn."""
    with tempfile.TemporaryDirectory() as scratch, running_s3(Path(scratch) / "s3") as server:
        server.make_bucket("listing")
        os.environ.update(server.env)
        names = [f"s3://listing/images/{number % S3_FOLDERS:03d}/{number:06d}.jpg" for number in range(S3_OBJECTS)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: StorePath(name).put(b"x"), names))
        rounds = [{threads: child("--s3-threads", str(threads)) for threads in (1, 16)} for _ in range(ROUNDS)]
    ratios = [figures[1]["wall_s"] / figures[16]["wall_s"] for figures in rounds]
    return {"folders": S3_FOLDERS, "rounds": rounds, "16 threads over one": round(statistics.median(ratios), 2)}


def child(*flags: str) -> dict[str, Any]:
    """Runs this script in a process of its own, so that the peak of memory belongs to one listing."""
    command = [sys.executable, "-m", "benchmarks.listing.listing", *flags]
    figures = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    print(*flags, figures, flush=True)
    return figures


def peak_mib() -> float:
    """Returns the largest resident set that this process has had, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
