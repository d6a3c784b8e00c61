"""Measures whether twice the actors do twice the work: the flow around networks that sleep, from one actor to eight.

    python -m benchmarks.job.scaling --out benchmarks/results/scaling.json

A network that sleeps needs no core, like a network on a GPU of its own. So the benchmark measures the work around the
network: reading and decoding small JPEGs, and passing chunks to actors and rows to collectors, on the cores of this
machine. Ray gets more cores than the machine has, the same number in each run, so that eight actors get their shares.

A rate counts the images that were done while all actors had work: from the end of the last actor's first chunk to the
end of the first actor's last chunk. The efficiency of a rate is its ratio to one actor's rate, and to the pace of the
sleep.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.job.flow import Bench, images_within, write_linked
from benchmarks.job.noted import Note
from benchmarks.job.stand_ins import SleepingNetwork
from benchmarks.tools.machine import machine, versions
from model import VARIANTS, random_weights, save_checkpoint
from pipeline.chunks.chunk import CHUNK_MAX_RECORDS
from pipeline.decode.decode_chunk import decode_chunk
from pipeline.flow.steps import Steps

NUM_ACTORS = (1, 2, 4, 8)
IMAGE_S = 0.02
# A chunk of images of this size is one block of Ray, so that an actor gets one chunk at a time.
SIZES = [(160, 120)]
# CPUs that Ray believes in: enough for eight actors, a reader and some decoders (pipeline/cluster/processors.py).
TOLD_CPUS = 6
PACKAGES = ("ray", "pyarrow", "simplejpeg")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--chunks", type=int, default=16, help="for each actor; four are enough for a look")
    parser.add_argument("--actors", type=int, nargs="+", default=NUM_ACTORS, metavar="N")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many runs of each number of actors")
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    os.environ["RAY_OVERRIDE_RESOURCES"] = json.dumps({"CPU": TOLD_CPUS})
    best: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save_checkpoint(random_weights(VARIANTS["b0"], 0), VARIANTS["b0"], None, folder / "weights")
        for num_actors in flags.actors:
            write_linked(folder / f"{num_actors}", flags.chunks * num_actors * CHUNK_MAX_RECORDS, SIZES)
        bench = Bench(folder, folder / "weights")
        for _ in range(flags.rounds):
            for num_actors in flags.actors:
                done = bench.run(
                    f"{num_actors}", Steps(decode=decode_chunk, infer=SleepingNetwork(IMAGE_S)), num_actors
                )
                best[num_actors] = max(best.get(num_actors, 0.0), images_per_s(done.notes["compute"], num_actors))
    one = best[min(best)] / min(best)
    table = [
        {
            "actors": num_actors,
            "images_per_s": round(rate, 1),
            "efficiency": round(rate / num_actors / one, 3),
            "of_the_sleep": round(rate * IMAGE_S / num_actors, 3),
        }
        for num_actors, rate in best.items()
    ]
    report = {
        "image_s": IMAGE_S, "chunks_an_actor": flags.chunks, "rounds": flags.rounds, "told_cpus": TOLD_CPUS,
        "scaling": table, "versions": versions(PACKAGES), "machine": machine(),
    }  # fmt: skip
    flags.out.write_text(json.dumps(report, indent=1) + "\n")
    print("actors  images/s  against one actor  against the sleep")
    for row in table:
        print(f"{row['actors']:6}  {row['images_per_s']:8.1f}  {row['efficiency']:17.1%}  {row['of_the_sleep']:17.1%}")


def images_per_s(notes: Sequence[Note], num_actors: int) -> float:
    """Returns the images a second of all actors together, while each of them had work.

    Raises:
        RuntimeError: An actor had no work, or the actors did not work at the same time.
    """
    actors = {note.pid for note in notes}
    if len(actors) != num_actors:
        raise RuntimeError(f"{len(actors)} of {num_actors} actors had work")
    begin = max(min(note.ended for note in notes if note.pid == pid) for pid in actors)
    end = min(max(note.ended for note in notes if note.pid == pid) for pid in actors)
    if end <= begin:
        raise RuntimeError("the actors did not work side by side: give more --chunks")
    return images_within(notes, begin, end) / (end - begin)


if __name__ == "__main__":
    main()
