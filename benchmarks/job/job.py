"""Compares the whole job with other programs that do the same work, as ratios of their speeds.

    python -m benchmarks.job.job --sizes sizes.csv --out benchmarks/results/job-b0.json

Every contender gets the same images and weights, and writes Parquet with one row for each image. The rows are counted
and compared after each run. Each round runs every contender once, so that a machine whose speed drifts slows all
contenders. The results are medians, and ratios of each round. Contenders whose package is not installed are left out
(`make bench-env` installs all).
"""

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.job.rows import Rows, compare, our_steady_rate, read_ours, read_theirs, steady_rate
from benchmarks.tools.machine import command, machine, versions
from benchmarks.tools.photos import read_sizes, write_photos, write_tars
from benchmarks.tools.process_tree import Measured, run_measured
from model import VARIANTS, random_weights, save_checkpoint

ROOT = Path(__file__).resolve().parent.parent.parent
OURS = "ours"
OURS_AT_224 = "ours, square:224"
IMAGES_PER_TAR = 50
LOG_TAIL = 2000
PACKAGES = ("ray", "torch", "transformers", "pyarrow", "pillow", "daft", "webdataset")
RATES = ("whole_images_per_s", "steady_images_per_s")


@dataclass(frozen=True, kw_only=True)
class Contender:
    """The command of one of the compared programs, without `--output`.

    Attributes:
        pixels: `native`, or the side to which the contender resizes images.
        needs: Package without which the contender cannot run.
    """

    arguments: tuple[str, ...]
    pixels: str = "native"
    needs: str = "ray"


def contenders(photos: Path, tars: Path, weights: Path, precision: str) -> dict[str, Contender]:
    """Returns the compared programs by name, ours first.

    Ray's recipe as documented runs in float32, whatever the precision is.
    """
    common = ("--weights", str(weights), "--precision", precision)
    on_photos, on_tars = ("--input", str(photos), *common), ("--input", str(tars), *common)
    recipe = ("-m", "benchmarks.peers.ray_recipe", *on_photos)
    loader = ("-m", "benchmarks.peers.dataloader", *on_photos)
    return {
        OURS: Contender(arguments=("jobs/classify.py", *on_photos)),
        OURS_AT_224: Contender(arguments=("jobs/classify.py", *on_photos, "--size", "square:224"), pixels="224"),
        f"{OURS_AT_224}, JPEGs reduced": Contender(
            arguments=("jobs/classify.py", *on_photos, "--size", "square:224", "--jpeg-decoding", "reduced"),
            pixels="224",
        ),
        "Ray's recipe, as documented": Contender(arguments=recipe),
        "Ray's recipe, at its best": Contender(arguments=(*recipe, "--best")),
        "DataLoader, transformers": Contender(arguments=(*loader, "--engine", "transformers"), needs="transformers"),
        "DataLoader, our network": Contender(arguments=(*loader, "--engine", "ours"), needs="transformers"),
        "Daft": Contender(arguments=("-m", "benchmarks.peers.daft_job", *on_photos), needs="daft"),
        "Ray's recipe, as documented, 224": Contender(arguments=(*recipe, "--resize", "224"), pixels="224"),
        "Ray's recipe, at its best, 224": Contender(arguments=(*recipe, "--resize", "224", "--best"), pixels="224"),
        "clip-retrieval's pattern, 224": Contender(
            arguments=("-m", "benchmarks.peers.clip_retrieval_pattern", *on_tars), pixels="224", needs="webdataset"
        ),
    }


def measure(name: str, contender: Contender, output: Path, log: Path) -> tuple[dict[str, Any], Rows]:
    """Runs a program to its end; returns its figures, and the rows that the program wrote."""
    result = run_measured([sys.executable, *contender.arguments, "--output", str(output)], cwd=ROOT, log=log)
    if result.exit_code:
        print(f"{name} ended with exit {result.exit_code}:\n{log.read_text()[-LOG_TAIL:]}", file=sys.stderr, flush=True)
    rows, steady = _left(name, result, output)
    figures = {
        "exit": result.exit_code,
        "wall_s": result.wall_s,
        "whole_images_per_s": round(len(rows.names) / result.wall_s, 3),
        "steady_images_per_s": round(steady, 3),
        "peak_mib": result.peak_mib,
        "peak_object_store_mib": result.peak_store_mib,
    }
    return figures, rows


def ratios(ours: Sequence[dict], theirs: Sequence[dict]) -> dict[str, float | None]:
    """Returns the median over the rounds of our rate divided by theirs; None if no round has both rates."""
    found: dict[str, float | None] = {}
    for rate in RATES:
        pairs = [(a[rate], b[rate]) for a, b in zip(ours, theirs, strict=True) if a[rate] and b[rate]]
        found[rate] = round(statistics.median(a / b for a, b in pairs), 3) if pairs else None
    return found


def _left(name: str, result: Measured, output: Path) -> tuple[Rows, float]:
    """Returns the rows that a program wrote, and its steady rate; a program that failed may have written no rows."""
    if not any(output.rglob("*.parquet")):
        return Rows(names=[], label_ids=[]), 0.0
    if name.startswith(OURS):
        rows, largest = read_ours(output)
        return rows, our_steady_rate(result.summary, largest)
    rows, done_at = read_theirs(output)
    return rows, steady_rate(done_at)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path, help="a folder in transformers' format; default: random ones")
    parser.add_argument("--variant", choices=VARIANTS, default="b0", help="of the random weights")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--sizes", type=Path, help="CSV with width,height,count; default: a few common sizes")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="TEXT", help="run those whose name holds one of these, and ours"
    )
    parser.add_argument(
        "--log",
        type=Path,
        help="where the contenders' stderr is added; default: nowhere, save the end of what a failed one said",
    )
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {}
    left_out = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        weights = flags.weights or folder / "weights"
        if flags.weights is None:
            config = VARIANTS[flags.variant]
            save_checkpoint(random_weights(config, seed=0), config, None, weights)
        photos = folder / "photos"
        write_photos(photos, flags.images, read_sizes(flags.sizes), seed=1)
        expected = sorted(path.name for path in photos.iterdir())
        write_tars(folder / "tars", [(name, (photos / name).read_bytes()) for name in expected], IMAGES_PER_TAR)
        chosen: dict[str, Contender] = {}
        for name, contender in contenders(photos, folder / "tars", weights, flags.precision).items():
            if importlib.util.find_spec(contender.needs) is None:
                left_out.append(f"{name}: {contender.needs} is not installed")
            elif name == OURS or any(text in name for text in flags.only):
                chosen[name] = contender
        for number in range(flags.rounds):
            ours = Rows(names=[], label_ids=[])
            for name, contender in chosen.items():
                output = folder / f"round-{number}" / name.replace(" ", "-")
                figures, rows = measure(name, contender, output, flags.log or folder / "log")
                ours = rows if name == OURS else ours
                figures |= compare(expected, rows, ours)
                runs.setdefault(name, []).append(figures)
                print(number, name, figures, flush=True)
    report = {
        "benchmark": "job",
        "variant": flags.variant if flags.weights is None else flags.weights.name,
        "precision": flags.precision,
        "images": flags.images,
        "pixels": {name: contender.pixels for name, contender in chosen.items()},
        "left_out": left_out,
        "ours_times_as_fast": {
            name: ratios(runs[OURS], theirs) for name, theirs in runs.items() if not name.startswith(OURS_AT_224)
        },
        # At 224 px every contender has as many pixels for the network.
        "ours_at_224_times_as_fast": {
            name: ratios(runs[OURS_AT_224], theirs)
            for name, theirs in runs.items()
            if OURS_AT_224 in runs and chosen[name].pixels == "224"
        },
        "runs": runs,
        "versions": versions(PACKAGES),
        "machine": machine(),
        "command": command("benchmarks.job.job", sys.argv[1:]),
    }
    for name in ("ours_times_as_fast", "ours_at_224_times_as_fast"):
        print(name, json.dumps(report[name], indent=1))
    flags.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
