"""How long the accelerator waits: the flow around networks that sleep, and real work against its parts alone.

    python -m benchmarks.job.flow --out benchmarks/results/flow.json

| part | what runs | compared with |
| --- | --- | --- |
| sleeping | photos, really decoded, one actor that sleeps in place of a GPU's work | the pace of the sleep |
| real | photos, then thumbnails, an actor a core | 1 / (1/decode + 1/network), each measured alone on all cores |
| plumbing | thumbnails of 64x64, a network that takes no time; with decoding and without | images/s |
| decoding | JPEGs of some sizes, in this process alone | Pillow over the same files |

A rate counts the images whose work lies in the measured span of time. Images that were decoded before the network was
loaded do not count in the span in which the network ran: for that span the expected time adds the decoding and the
computing that was done in it.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pyarrow as pa

from benchmarks.job.noted import Note, noted, read_notes
from benchmarks.job.stand_ins import SleepingNetwork, no_decoding
from benchmarks.tools.machine import machine, versions
from benchmarks.tools.photos import COMMON_SIZES, photos
from model import VARIANTS, random_weights, save_checkpoint
from pipeline.chunks.chunk import Chunk
from pipeline.chunks.size_policy import SizePolicy
from pipeline.chunks.task import Classify
from pipeline.cluster.config import ComputeConfig
from pipeline.config.job_config import JobConfig
from pipeline.decode import decode_image as decode
from pipeline.decode.decode_chunk import decode_chunk
from pipeline.flow.steps import NETWORK, Steps
from pipeline.infer.config import InferConfig
from pipeline.inputs.config import InputConfig
from pipeline.lease.lease import Lease
from pipeline.output.config import OutputConfig
from pipeline.read.read_shard import read_shard
from pipeline.run.execute import execute
from pipeline.run.prepare import prepare
from pipeline.run.run import Run
from pipeline.run.step_settings import infer_config, read_config

THUMBNAIL_SIZES = [(64, 64), (80, 64), (96, 72)]
NUM_DISTINCT = 250
# Seconds that the sleeping network takes for a photo. A core decodes a photo in less time, so that the network need not
# wait.
SLEEP_S = 0.004
DECODED_SIZES = [(64, 64), (80, 80), (160, 120), (500, 375)]
ALONE_S = 6.0
ALONE_CHUNKS = 24
REAL_ROUNDS = 3
PACKAGES = ("ray", "torch", "pyarrow", "pillow", "simplejpeg")


@dataclass(frozen=True, kw_only=True)
class Done:
    """One run of the flow.

    Attributes:
        images: Number of images.
        notes: Notes of each step, in the order of their ends.
        published_at: `time.time()` at which the last file was published.
    """

    images: int
    notes: dict[str, list[Note]]
    published_at: float


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path, help="default: B0 with random weights")
    parser.add_argument("--scale", type=float, default=1.0, help="how many times the images; a look takes 0.2")
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    counts = {"photos": 6000, "real photos": 900, "thumbnails": 15_000, "tiny": 100_000}
    counts = {name: round(count * flags.scale) for name, count in counts.items()}
    sizes = {"photos": COMMON_SIZES, "real photos": COMMON_SIZES, "thumbnails": THUMBNAIL_SIZES, "tiny": [(64, 64)]}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        weights = flags.weights or folder / "weights"
        if flags.weights is None:
            save_checkpoint(random_weights(VARIANTS["b0"], 0), VARIANTS["b0"], None, weights)
        for name, count in counts.items():
            write_linked(folder / name, count, sizes[name])
        bench = Bench(folder, weights)
        report = {
            "sleeping": sleeping(bench),
            "real": {name: real(bench, name) for name in ("real photos", "thumbnails")},
            "plumbing": {
                "decoded": plumbing(bench, Steps(decode=decode_chunk, infer=SleepingNetwork(0.0))),
                "not decoded": plumbing(bench, Steps(decode=no_decoding, infer=SleepingNetwork(0.0))),
            },
            "decoding": {f"{width}x{height}": decoding(width, height) for width, height in DECODED_SIZES},
            "images": counts,
            "versions": versions(PACKAGES),
            "machine": machine(),
        }
    print(json.dumps(report, indent=1))
    flags.out.write_text(json.dumps(report, indent=1) + "\n")


def write_linked(folder: Path, count: int, sizes: Sequence[tuple[int, int]]) -> None:
    """Writes a folder of `count` JPEGs, of which at most `NUM_DISTINCT` are drawn and the others are links to these."""
    folder.mkdir()
    drawn = []
    for name, data in photos(min(count, NUM_DISTINCT), list(sizes)):
        (folder / name).write_bytes(data)
        drawn.append(folder / name)
    for number in range(len(drawn), count):
        (folder / f"{number:06d}.jpg").hardlink_to(drawn[number % len(drawn)])


@dataclass(frozen=True)
class Bench:
    """The folder of inputs and outputs, and the weights of all runs."""

    folder: Path
    weights: Path

    def config(self, name: str, output: str, num_actors: int, *, dry_run: bool = False) -> JobConfig:
        return JobConfig(
            task=Classify(top_k=1),
            input=InputConfig(uris=(str(self.folder / name),)),
            output=OutputConfig(uri=str(self.folder / output)),
            weights=str(self.weights),
            compute=ComputeConfig(num_actors=(num_actors, num_actors), device="cpu"),
            run_id="flow",
            dry_run=dry_run,
        )

    def run(self, name: str, steps: Steps, num_actors: int) -> Done:
        """Runs the job over one of the inputs with the given steps; returns the notes that the steps wrote."""
        label = f"{name} {time.time_ns()}"
        notes = self.folder / f"notes {label}"
        notes.mkdir()
        config = self.config(name, f"output {label}", num_actors)
        with Lease(config.output.folder, "flow") as lease:
            run, ledger = prepare(config, time.time(), lease)
            report = execute(run, ledger, lambda _: None, noted(steps, notes))
        written = ledger.timeline.ends("write")
        if report.status != "done" or report.passes != 1 or report.run.failed or written is None:
            raise RuntimeError(f"{name}: {report.status}, {report.passes} passes, {report.run.failed} failed")
        by_step: dict[str, list[Note]] = {}
        for note in read_notes(notes):
            by_step.setdefault(note.step, []).append(note)
        print(f"{name}: {report.rates()}", flush=True)
        return Done(images=report.run.listed, notes=by_step, published_at=run.started_at + written[1])

    def dry_run(self, name: str) -> Run:
        """Returns the job over one of the inputs, prepared but not run."""
        config = self.config(name, "nowhere", 1, dry_run=True)
        lease = Lease(config.output.folder, "flow")
        return prepare(config, time.time(), lease)[0]


# ---- The parts of the report


def sleeping(bench: Bench) -> dict:
    """Measures an actor that sleeps for a fixed time for each image, once the processes of all steps have started."""
    done = bench.run("photos", Steps(decode=decode_chunk, infer=SleepingNetwork(SLEEP_S)), 1)
    begin, end = without_start(done.notes["compute"])
    images_per_s = images_within(done.notes["compute"], begin, end) / (end - begin)
    decoding_s = sum(note.ended - note.began for note in done.notes["decode"])
    return {
        "images_per_s": round(images_per_s, 1),
        "own_images_per_s": round(1 / SLEEP_S, 1),
        "fraction": round(images_per_s * SLEEP_S, 3),
        "decode_task_images_per_s": round(done.images / decoding_s, 1),
        "seconds": round(end - begin, 1),
    }


def without_start(notes: Sequence[Note]) -> tuple[float, float]:
    """Returns the times at which a quarter of the chunks and all chunks were done.

    During the first quarter, processes start on all cores.
    """
    return notes[len(notes) // 4].ended, notes[-1].ended


def real(bench: Bench, name: str) -> dict:
    """Runs `real_round` some times; returns the round with the median fraction, and the fractions of all rounds."""
    rounds = sorted((real_round(bench, name) for _ in range(REAL_ROUNDS)), key=lambda found: found["fraction"])
    return {**rounds[REAL_ROUNDS // 2], "fractions": [found["fraction"] for found in rounds]}


def real_round(bench: Bench, name: str) -> dict:
    """Compares the job's rate with the rates of decoding and of the network alone, while all actors work.

    Each part runs alone before and after the job, and its rate is the mean of both, since the speed of a shared machine
    changes from minute to minute.

    The span of time begins at the end of the last actor's first chunk, which takes every network longer, and ends with
    the first actor's last chunk. Images that were decoded and images that were computed in the span are counted apart,
    each chunk by the share of its work in the span.
    """
    run = bench.dry_run(name)
    before = {what: alone_images_per_s(run, what) for what in ("decode", "network")}
    done = bench.run(name, NETWORK, os.cpu_count() or 1)
    alone = {what: (rate + alone_images_per_s(run, what)) / 2 for what, rate in before.items()}
    computed = done.notes["compute"]
    actors = {note.pid for note in computed}
    begin = max(min(note.ended for note in computed if note.pid == pid) for pid in actors)
    end = min(max(note.ended for note in computed if note.pid == pid) for pid in actors)
    images = {step: images_within(done.notes[step], begin, end) for step in ("decode", "compute")}
    expected_s = images["decode"] / alone["decode"] + images["compute"] / alone["network"]
    return {
        "images_per_s": round(images["compute"] / (end - begin), 1),
        "decode_alone_images_per_s": round(alone["decode"], 1),
        "network_alone_images_per_s": round(alone["network"], 1),
        "seconds": round(end - begin, 1),
        "images_decoded_and_computed_in_them": [round(count) for count in images.values()],
        "fraction": round(expected_s / (end - begin), 3),
    }


def images_within(notes: Sequence[Note], begin: float, end: float) -> float:
    """Returns the number of images whose work lies between two times.

    A chunk counts by the share of its work that lies between the times.
    """
    parts = ((min(note.ended, end) - max(note.began, begin)) / (note.ended - note.began) for note in notes)
    return sum(max(0.0, part) * note.images for part, note in zip(parts, notes, strict=True))


def plumbing(bench: Bench, steps: Steps) -> dict:
    """Measures the job around a network that takes no time: once with the start of all processes, once without.

    The rate with the start counts from the decoding of the first chunk to the publication of the last file. The rate
    without the start counts no more images than were decoded in its span.
    """
    done = bench.run("tiny", steps, 1)
    whole_s = done.published_at - min(note.began for note in done.notes["decode"])
    begin, _ = without_start(done.notes["compute"])
    steady_s = done.published_at - begin
    images = min(images_within(done.notes[step], begin, done.published_at) for step in ("decode", "compute"))
    return {
        "images_per_s_with_start": round(done.images / whole_s, 1),
        "images_per_s": round(images / steady_s, 1),
        "seconds": [round(whole_s, 1), round(steady_s, 1)],
    }


def decoding(width: int, height: int) -> dict:
    """Returns the microseconds for one image without and with Pillow, each the best of five turns, and their ratio."""
    data = [body for _, body in photos(20, [(width, height)])]
    best = {True: float("inf"), False: float("inf")}
    policy = SizePolicy()
    for _ in range(5):
        for is_past_pillow in best:
            decode._HAS_SAME_JPEG_LIBRARY = is_past_pillow
            started = time.perf_counter()
            for body in data * 5:
                decode.decode_image(body, policy)
            best[is_past_pillow] = min(best[is_past_pillow], time.perf_counter() - started)
    decode._HAS_SAME_JPEG_LIBRARY = True
    past, pillow = (seconds / len(data * 5) * 1e6 for seconds in best.values())
    return {"us": round(past, 1), "pillow_us": round(pillow, 1), "ratio": round(pillow / past, 2)}


# ---- A part alone


def alone_images_per_s(run: Run, what: str) -> float:
    """Returns the images/s of one step on all cores, with one process a core, over the first chunks of the input."""
    chunks = [chunk.to_table() for chunk in islice(encoded_chunks(run), ALONE_CHUNKS)]
    context = multiprocessing.get_context("spawn")
    num_processes = os.cpu_count() or 1
    ready, rates = context.Barrier(num_processes), context.Queue()
    arguments = (what, chunks, run.checkpoint.files.weights, infer_config(run, "cpu"), ready, rates)
    processes = [context.Process(target=_measure, args=arguments, daemon=True) for _ in range(num_processes)]
    for process in processes:
        process.start()
    total = sum(rates.get() for _ in processes)
    for process in processes:
        process.join()
    return total


def encoded_chunks(run: Run) -> Iterator[Chunk]:
    """Yields the chunks that the run would decode."""
    for shard in run.plan.shards:
        yield from read_shard(shard, read_config(run, 1, last_pass=False))


def _measure(
    what: str, tables: Sequence[pa.Table], weights: bytes, config: InferConfig, ready: Barrier, rates: Queue
) -> None:
    """Measures one step in a process of its own; puts the images/s of the process into the queue."""
    chunks = [Chunk.from_table(table) for table in tables]
    work: Callable[[Chunk], Chunk]
    if what == "decode":

        def work(chunk: Chunk) -> Chunk:
            return decode_chunk(chunk, SizePolicy())

    else:
        from pipeline.infer.infer_step import InferStep

        chunks = [Chunk.from_table(decode_chunk(chunk, SizePolicy()).to_table()) for chunk in chunks]
        work = InferStep(weights, config).infer
    work(chunks[0])
    ready.wait()
    images, seconds, started = 0, 0.0, time.perf_counter()
    for chunk in cycle(chunks):
        work(chunk)
        images, seconds = images + chunk.rows.num_rows, time.perf_counter() - started
        if seconds > ALONE_S:
            break
    rates.put(images / seconds)


if __name__ == "__main__":
    main()
