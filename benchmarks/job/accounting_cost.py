"""What measuring costs: everything that exists for the account alone, a chunk, against the work on that chunk.

    python -m benchmarks.job.accounting_cost --out benchmarks/results/measuring.json

The chunk is one on which little work is done: 128 thumbnails of 64x64 px. The work is decoding and B0 on one thread;
reading, Ray and Parquet come on top of it, and would make the share smaller.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from benchmarks.job.flow import Bench, encoded_chunks, write_linked
from benchmarks.tools.machine import command, machine, versions
from model import VARIANTS, random_weights, save_checkpoint
from pipeline.account.breakdown import Breakdown, breakdown_of
from pipeline.account.timeline import Timeline
from pipeline.chunks.chunk import Chunk
from pipeline.chunks.measures import MEASURES, NOTHING, counts_of, seconds_of, spans_of
from pipeline.chunks.size_policy import SizePolicy
from pipeline.decode.decode_chunk import decode_chunk
from pipeline.infer.infer_step import InferStep
from pipeline.publish.receipt import slice_totals
from pipeline.read.build_chunk import ReadClock
from pipeline.run.step_settings import infer_config
from pipeline.store.meter import count_fetch, waiting

COUNT, SIDE, CHUNKS_A_SLICE = 128, 64, 32
TURNS = 200


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    with TemporaryDirectory() as folder:
        save_checkpoint(random_weights(VARIANTS["b0"], 0), VARIANTS["b0"], None, Path(folder, "weights"))
        write_linked(Path(folder, "images"), COUNT, [(SIDE, SIDE)])
        run = Bench(Path(folder), Path(folder, "weights")).dry_run("images")
        encoded = next(encoded_chunks(run))
        step = InferStep(run.checkpoint.files.weights, infer_config(run, "cpu"))
        decoded = decode_chunk(encoded, SizePolicy())
        answered = step.infer(decoded)
        slice_rows = pa.concat_tables([answered.rows] * CHUNKS_A_SLICE)
        arrived = slice_totals(answered.rows, [answered])
        parts = {
            "store: counting each request": lambda: [count_fetch(0.0, 0.0, 1) for _ in range(COUNT)],
            "store: counting each wait": lambda: [_wait() for _ in range(COUNT)],
            "chunk: clocks and marks": lambda: (ReadClock().measured(), [_marked(encoded) for _ in range(3)]),
            "chunk: measures into an array and back, four times": lambda: [_there_and_back() for _ in range(4)],
            "slice: sums": lambda: (seconds_of([answered.measured]), counts_of([answered.measured])),
            "collector: what arrived": lambda: arrived + slice_totals(answered.rows, [answered]),
            "slice: its picture": lambda: Breakdown() + breakdown_of(slice_rows, 1.0, 1.0, 1.0),
            "driver: the timeline": lambda: [
                Timeline(0.0).add(span._replace(ended=3.0), COUNT, 1, 1) for span in spans_of(answered.measured)
            ],
        }
        measuring = {name: _best_us(part) for name, part in parts.items()}
        measuring["slice: its picture"] = round(measuring["slice: its picture"] / CHUNKS_A_SLICE, 1)
        work = {
            "decoding": _best_us(lambda: decode_chunk(encoded, SizePolicy()), 10),
            "network": _best_us(lambda: step.infer(decoded), 10),
        }
    report = {
        "us_a_chunk": {"measuring": measuring, "work": work},
        "share": round(sum(measuring.values()) / sum(work.values()), 5),
        "images_a_chunk": COUNT,
        "versions": versions(("ray", "torch", "pyarrow")),
        "machine": machine(),
        "command": command("benchmarks.job.accounting_cost", sys.argv[1:]),
    }
    print(json.dumps(report, indent=1))
    flags.out.write_text(json.dumps(report, indent=1) + "\n")


def _best_us(work: Callable[[], object], turns: int = TURNS) -> float:
    """Microseconds of the best turn."""
    best_s = float("inf")
    for _ in range(turns):
        started = time.perf_counter()
        work()
        best_s = min(best_s, time.perf_counter() - started)
    return round(best_s * 1e6, 1)


def _wait() -> None:
    with waiting():
        pass


def _marked(chunk: Chunk) -> Chunk:
    return chunk.after("decode", time.perf_counter(), chunk.rows, chunk.payload).with_measured(wait_s=1.0)


def _there_and_back() -> dict[str, float]:
    array = pa.array([[NOTHING[name] for name in MEASURES]], pa.list_(pa.float64(), len(MEASURES)))
    return dict(zip(MEASURES, array[0].as_py(), strict=True))


if __name__ == "__main__":
    main()
