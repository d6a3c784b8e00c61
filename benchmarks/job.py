"""The whole job against the recipe of Ray's documentation with transformers, in turn, as ratios.

    python -m benchmarks.job --weights FOLDER --sizes sizes.csv --out benchmarks/results/job.json

Each round runs every contender once, so that a machine whose speed drifts slows all of them. Quoted are medians, and
ratios round by round.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import run_measured
from benchmarks.photos import read_sizes, write_photos

ROOT = Path(__file__).resolve().parent.parent

PACKAGES = ("ray", "torch", "transformers", "pyarrow", "pillow")


def commands(photos: Path, weights: Path, output: Path) -> dict[str, list[str]]:
    recipe = [sys.executable, "benchmarks/peers/ray_recipe.py", "--input", str(photos), "--weights", str(weights)]
    ours = [sys.executable, "jobs/classify.py", "--input", str(photos), "--weights", str(weights)]
    return {
        "ours, native": [*ours, "--output", str(output / "ours")],
        "recipe as documented, native": [*recipe, "--output", str(output / "documented")],
        "recipe at its best, native": [*recipe, "--output", str(output / "best"), "--best"],
        "recipe as documented, resized to 224": [*recipe, "--output", str(output / "d224"), "--resize", "224"],
        "recipe at its best, resized to 224": [*recipe, "--output", str(output / "b224"), "--resize", "224", "--best"],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--sizes", type=Path, help="CSV with width,height,count; default: a few common sizes")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", metavar="TEXT", help="run the contenders whose name holds this")
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    runs: dict[str, list[dict]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_photos(folder / "photos", flags.images, read_sizes(flags.sizes), seed=1)
        for number in range(flags.rounds):
            contenders = commands(folder / "photos", flags.weights, folder / f"round-{number}")
            for name, command in contenders.items():
                if flags.only not in name:
                    continue
                result = run_measured(command, cwd=ROOT, log=folder / "log")
                rates = {key: result.summary.get(key, 0.0) for key in ("images_per_s", "steady_images_per_s")}
                run = {"exit": result.exit_code, "whole_images_per_s": flags.images / result.wall_s, **rates}
                runs.setdefault(name, []).append({**run, "wall_s": result.wall_s, "peak_mib": result.peak_mib})
                print(number, name, runs[name][-1], flush=True)
    report = {
        "images": flags.images,
        "runs": runs,
        "ratios": {name: ratios(runs["ours, native"], others) for name, others in runs.items()},
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        "cpus": os.cpu_count(),
    }
    print(json.dumps(report["ratios"], indent=1))
    flags.out.write_text(json.dumps(report, indent=1) + "\n")


def ratios(ours: list[dict], others: list[dict]) -> dict[str, float]:
    """How many times our rate is theirs: median over the rounds."""
    return {
        key: round(statistics.median(a[key] / b[key] for a, b in zip(ours, others, strict=True) if b[key]), 2)
        for key in ("whole_images_per_s", "steady_images_per_s")
    }


if __name__ == "__main__":
    main()
