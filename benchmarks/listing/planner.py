"""Measures the time and memory that a plan costs the driver, over millions of objects whose listing is computed.

    python -m benchmarks.listing.planner --out benchmarks/results/planner.json

Listing, merge, plan file and index are the real ones; only the pages of the store are computed. Each case runs in a
process of its own, so that the peak memory belongs to one case.
"""

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from benchmarks.listing.fake_lister import FakePages, image_folders, tar_folder
from pipeline.account.totals import Totals
from pipeline.inputs.config import InputConfig
from pipeline.inputs.listing import Survey
from pipeline.output.footer import Footer
from pipeline.output.layout import SliceName, version_of
from pipeline.output.published import PublishedFile, list_files, published_files, read_index, write_index
from pipeline.plan.plan_file import OwnGroups, PlanFile
from pipeline.plan.planned_shard import PlannedShard
from pipeline.plan.planner import Planner, PlanOptions
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri, local_path

ROWS_PER_FILE = 4096
SOURCE = "s3://fake"


def plan(pages: FakePages, published: list[PublishedFile], earlier: list[BinaryIO]) -> tuple[PlanFile, int]:
    """Returns the plan over computed pages, and the number of its shards."""
    config = InputConfig(uris=(SOURCE,))
    planner = Planner(
        Survey(config, "s3://out", pages.list_objects),
        published,
        OwnGroups(earlier).by_plan(),
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
    """Returns the one file of a group, as a run would have published it."""
    rows = len(shard.members)
    footer = Footer(
        shard=shard.shard, hash16=shard.hash16, slice=0, end=True, first_row=0, last_row=rows - 1, identity="i",
        source_etag=version_of((member.uri, member.etag) for member in shard.members), run_id="r", attempt="a",
        nonce="n", totals=Totals(listed=rows, ok=rows, files=1),
    )  # fmt: skip
    return PublishedFile.of(str(SliceName(shard.name, shard.hash16, 0, True)), "e", footer)


def new_images(millions: float) -> dict[str, Any]:
    """Measures a plan where nothing is published: every image is new."""
    started = time.perf_counter()
    rows, shards = plan(_images(millions), [], [])
    seconds = time.perf_counter() - started
    return {"shards": shards, "plan_mib": round(len(rows.to_bytes()) / 2**20, 1), "seconds": seconds}


def done_images(millions: float) -> dict[str, Any]:
    """Measures a plan where every image is published and unchanged, so that the plan is empty."""
    return _done(millions, num_broken=0)


def done_after_broken_runs(millions: float) -> dict[str, Any]:
    """Measures a plan where every image is published, after nine killed runs that each left a plan of all images."""
    return _done(millions, num_broken=9)


def _done(millions: float, num_broken: int) -> dict[str, Any]:
    with made_output(_make_images, millions) as output, ExitStack() as until_read:
        started = time.perf_counter()
        published = published_files(StorePath(output), identity="i")
        names = ["plan.parquet", *["known.parquet"] * num_broken]
        earlier = [until_read.enter_context((local_path(output) / name).open("rb")) for name in names]
        _, shards = plan(_images(millions), published, earlier)
        seconds = time.perf_counter() - started
        assert shards == 0, shards
        return {"shards": shards, "files": len(published), "seconds": seconds}


def _images(millions: float) -> FakePages:
    return FakePages(image_folders(int(millions * 1e6), 1000))


def _make_images(output: str, millions: float) -> None:
    rows, _ = plan(_images(millions), [], [])
    known = PlanFile(replace(shard, known=True, action="continue") for shard in rows)
    (local_path(output) / "plan.parquet").write_bytes(rows.to_bytes())
    (local_path(output) / "known.parquet").write_bytes(known.to_bytes())
    _publish(output, map(published_by, rows))


def new_tars(millions: float) -> dict[str, Any]:
    """Measures a plan where nothing is published: every tar is new."""
    started = time.perf_counter()
    _, shards = plan(FakePages([tar_folder(int(millions * 1e6))]), [], [])
    return {"shards": shards, "seconds": time.perf_counter() - started}


def resume(slices: float) -> dict[str, Any]:
    """Measures reading an output of many files with a current index on the local disk, and writing the index.

    A run with nothing to do reads an output like this. At the end of a run the index is written like this.
    """
    with made_output(_make_slices, slices) as output:
        started = time.perf_counter()
        index = read_index(StorePath(output))
        index_s = time.perf_counter() - started
        del index
        started = time.perf_counter()
        found = published_files(StorePath(output), identity="i")
        seconds = time.perf_counter() - started
        assert len(found) == int(slices)
        started = time.perf_counter()
        write_index(StorePath(output), found)
        write_s = time.perf_counter() - started
        return {
            "shards": len(found) // 10, "index_seconds": index_s, "seconds": seconds, "write_index_seconds": write_s,
        }  # fmt: skip


def _make_slices(output: str, slices: float) -> None:
    def entry(number: int) -> PublishedFile:
        name = SliceName("train", f"{number // 10:016x}", number % 10, number % 10 == 9)
        footer = Footer(
            shard=f"s3://fake/train-{number // 10}.tar", hash16=name.hash16, slice=name.slice, end=name.end,
            source_etag="e", first_row=4096 * name.slice, last_row=4096 * name.slice + 4095, identity="i",
            run_id="r", attempt="a", nonce="n",
            totals=Totals(listed=4096, ok=4096, files=1, seconds={"read": 1.0, "decode": 2.0, "infer": 3.0}),
        )  # fmt: skip
        return PublishedFile.of(str(name), "", footer)

    _publish(output, map(entry, range(int(slices))))


def _publish(output: str, entries: Iterable[PublishedFile]) -> None:
    """Makes empty files with the names of these entries, and an index of the entries."""
    made = list(entries)
    data = local_path(output) / "data"
    data.mkdir()
    for entry in made:
        (data / entry.file).touch()
    etags = {name: info.etag for name, info in list_files(StorePath(output)).items()}
    write_index(StorePath(output), [replace(entry, etag=etags[entry.file]) for entry in made])


@contextmanager
def made_output(make: Callable[[str, float], None], size: float) -> Iterator[str]:
    """Yields an output in a temporary folder.

    Another process makes the output, so that the memory of the case does not include the making.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = canonical_uri(folder)
        process = multiprocessing.get_context("spawn").Process(target=make, args=(output, size))
        process.start()
        process.join()
        assert process.exitcode == 0
        yield output


CASES: dict[str, tuple[Callable[[float], dict[str, Any]], float]] = {
    "10 M new images": (new_images, 10.0),
    "10 M images, all done": (done_images, 10.0),
    "1 M images, all done after 9 broken runs": (done_after_broken_runs, 1.0),
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
