"""What a plan costs the driver: time and memory over millions of listed objects that are made up while they are listed.

    python -m benchmarks.planner --out benchmarks/results/planner.json

Listing, merge, plan file and index are the real ones; only the store's pages are made up. Each case runs in a process
of its own, so that its peak memory is its own.
"""

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.fake_lister import FakePages, image_folders, tar_folder
from pipeline.account import Footer, Totals
from pipeline.config import InputConfig
from pipeline.layout import SliceName, version_of
from pipeline.listing import Survey
from pipeline.output import PublishedFile, list_files, published_files, read_index, write_index
from pipeline.plan import PlannedShard
from pipeline.plan_file import PlanFile, read_plan
from pipeline.planner import Planner, PlanOptions
from pipeline.storage import StoreConfig
from pipeline.uris import canonical_uri

ROWS_PER_FILE = 4096
SOURCE = "s3://fake"


def plan(pages: FakePages, published: list[PublishedFile], earlier: list[pa.Buffer]) -> tuple[PlanFile, int]:
    """The plan over made-up pages, and how many shards it has."""
    config = InputConfig(uris=(SOURCE,))
    planner = Planner(
        Survey(config, "s3://out", pages.list_objects),
        published,
        [(shard for shard in read_plan(old) if shard.members) for old in earlier],
        config,
        PlanOptions(rows_per_file=ROWS_PER_FILE),
        lambda found, at_most: at_most,
        lambda file: [],
    )
    count = 0

    def counted():
        nonlocal count
        for shard in planner.shards():
            count += 1
            yield shard

    return PlanFile(counted()), count


def published_by(shard: PlannedShard) -> PublishedFile:
    """The one file of a group, as a run would have published it."""
    rows = len(shard.members)
    footer = Footer(
        shard=shard.shard, hash16=shard.hash16, slice=0, end=True, first_row=0, last_row=rows - 1, identity="i",
        source_etag=version_of((member.uri, member.etag) for member in shard.members), run_id="r", attempt="a",
        nonce="n", totals=Totals(listed=rows, ok=rows, files=1),
    )  # fmt: skip
    return PublishedFile.of(str(SliceName(shard.name, shard.hash16, 0, True)), "e", footer)


def new_images(millions: float) -> dict[str, Any]:
    """Nothing is published: every image is new."""
    started = time.perf_counter()
    rows, shards = plan(FakePages(image_folders(int(millions * 1e6), 1000)), [], [])
    seconds = time.perf_counter() - started
    return {"shards": shards, "plan_mib": round(len(rows.to_bytes()) / 2**20, 1), "seconds": seconds}


def done_images(millions: float) -> dict[str, Any]:
    """Everything is published and current: listing, the earlier plan and the output are merged to nothing."""
    pages = FakePages(image_folders(int(millions * 1e6), 1000))
    first, _ = plan(pages, [], [])
    published = [published_by(shard) for shard in first]
    earlier = pa.py_buffer(first.to_bytes())
    del first
    started = time.perf_counter()
    _, shards = plan(pages, published, [earlier])
    assert shards == 0, shards
    return {"shards": shards, "seconds": time.perf_counter() - started}


def new_tars(millions: float) -> dict[str, Any]:
    """Nothing is published: every tar is new."""
    started = time.perf_counter()
    _, shards = plan(FakePages([tar_folder(int(millions * 1e6))]), [], [])
    return {"shards": shards, "seconds": time.perf_counter() - started}


def resume(slices: float) -> dict[str, Any]:
    """An output of many files on the local disk, with a current index: what a run with nothing to do reads of it."""
    with tempfile.TemporaryDirectory() as folder:
        output, store = canonical_uri(folder), StoreConfig()
        entries = []
        data = Path(folder) / "data"
        data.mkdir()
        for number in range(int(slices)):
            name = SliceName("train", f"{number // 10:016x}", number % 10, number % 10 == 9)
            footer = Footer(
                shard=f"s3://fake/train-{number // 10}.tar", hash16=name.hash16, slice=name.slice, end=name.end,
                source_etag="e", first_row=4096 * name.slice, last_row=4096 * name.slice + 4095, identity="i",
                run_id="r", attempt="a", nonce="n",
                totals=Totals(listed=4096, ok=4096, files=1, seconds={"read": 1.0, "decode": 2.0, "infer": 3.0}),
            )  # fmt: skip
            path = data / str(name)
            path.touch()
            entries.append(PublishedFile.of(str(name), "", footer))
        etags = {name: info.etag for name, info in list_files(output, store).items()}
        write_index(output, store, [replace(entry, etag=etags[entry.file]) for entry in entries])
        del entries
        started = time.perf_counter()
        index = read_index(output, store)
        index_s = time.perf_counter() - started
        del index
        started = time.perf_counter()
        found = published_files(output, store, identity="i")
        seconds = time.perf_counter() - started
        assert len(found) == int(slices)
        return {"shards": len(found) // 10, "index_seconds": index_s, "seconds": seconds}


CASES: dict[str, tuple[Callable[[float], dict[str, Any]], float]] = {
    "10 M new images": (new_images, 10.0),
    "10 M images, all done": (done_images, 10.0),
    "1 M new tars": (new_tars, 1.0),
    "listing and index of 100,000 slices": (resume, 100_000),
}


def _measure(name: str, scale: float, connection: Any) -> None:
    function, size = CASES[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = function(size * scale)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rounded = {key: round(value, 2) if isinstance(value, float) else value for key, value in result.items()}
    connection.send({"case": name, **rounded, "before_mib": before // 1024, "peak_mib": peak // 1024})


def main() -> None:
    """Runs every case, prints it, and writes the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=float, default=1.0, help="share of the sizes named, for a quick look")
    parser.add_argument("--only", default="", metavar="TEXT", help="run the cases whose name holds this")
    parser.add_argument("--out", type=Path)
    flags = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    results = []
    for name in CASES:
        if flags.only not in name:
            continue
        ours, theirs = context.Pipe()
        process = context.Process(target=_measure, args=(name, flags.scale, theirs))
        process.start()
        results.append({"scale": flags.scale, **ours.recv()})
        process.join()
        print(results[-1], flush=True)
    if flags.out:
        flags.out.write_text(json.dumps({"cpus": os.cpu_count(), "cases": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
