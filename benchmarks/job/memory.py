"""Compares the peak memory of two jobs, one with ten times the images: the number of images must not matter.

python -m benchmarks.job.memory --weights FOLDER --out benchmarks/results/memory.json
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.tools.photos import write_photos
from benchmarks.tools.process_tree import run_measured

ROOT = Path(__file__).resolve().parent.parent.parent

SIZES = [(64, 64), (80, 64), (96, 72)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for count in (flags.images, 10 * flags.images):
            write_photos(folder / str(count), count, SIZES)
            job = [sys.executable, "jobs/classify.py", "--input", str(folder / str(count))]
            job += ["--weights", str(flags.weights), "--output", str(folder / f"out-{count}"), "--rows-per-file", "500"]
            result = run_measured(job, cwd=ROOT, log=folder / "log")
            rows.append(
                {
                    "images": result.summary["listed"],
                    "wall_s": result.wall_s,
                    "steady_images_per_s": result.summary["steady_images_per_s"],
                    "peak_mib": result.peak_mib,
                    "peak_object_store_mib": result.peak_store_mib,
                }
            )
            print(rows[-1], flush=True)
    ratio = rows[1]["peak_mib"] / rows[0]["peak_mib"]
    print(f"peak memory at ten times the images: {ratio:.3f}x")
    flags.out.write_text(json.dumps({"rows": rows, "ratio": round(ratio, 3)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
