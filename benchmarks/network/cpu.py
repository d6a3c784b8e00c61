"""The network alone, on one CPU thread: packs of mixed sizes against transformers and timm, as ratios.

    python -m benchmarks.network.cpu --variant b0 --sizes sizes.csv --out benchmarks/results/model-b0.json

All contenders of a case run in one process, in turn, with the same weights on the same images. The results are medians
over the rounds, and ratios of each round. Each case runs in two processes of its own: with glibc's allocator tuned, and
with the allocator's defaults. A peer is timed twice: image by image, as its library makes the network, and at its best.
At its best a peer runs batches of images of one size, each with the setting that was fastest for this batch size in a
first look. timm is left out if it is not installed (`make bench-env` installs it).
"""

import argparse
import json
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from benchmarks.network.batches import Size, batch_sizes, commonest, equal_batches, fastest, setting_for
from benchmarks.network.networks import Peer, Precision, Setting, normalised, peers, settings
from benchmarks.tools.machine import command, machine, versions
from benchmarks.tools.photos import read_sizes
from model import VARIANTS, PackedPVTv2, PVTv2, count_macs, is_compiled, random_weights
from pipeline.infer.allocator import tune_allocator
from pipeline.infer.packs import Budget, plan_packs

BUDGET = Budget(tokens=2**14, pairs=2**24)  # the budget of a pack in an infer actor on a CPU
ALLOCATORS = ("tuned", "default")
OURS = "ours, packed"
PACKAGES = ("torch", "torchvision", "transformers", "timm", "numpy")
MIN_ROUNDS = 2
# Seconds that a first look at a setting takes, or longer if one batch takes longer.
LOOK_S = 0.1

Run = Callable[[], Tensor]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One case: its images, its settings, and the time for measuring it.

    Attributes:
        sizes: (height, width) of each image, in pixels.
        case_s: Seconds from the start of the case after which no round may end; the first `MIN_ROUNDS` rounds always
            run.
    """

    name: str
    variant: str
    sizes: list[Size]
    is_tuned: bool
    precisions: tuple[Precision, ...]
    rounds: int
    case_s: float


def sizes_of_cases(variant: str, photo_sizes: list[Size], images: int, seed: int) -> dict[str, list[Size]]:
    """Returns (height, width) of the images of each case; nothing was tuned on these images.

    Args:
        photo_sizes: (width, height) of photos, once for each occurrence.
        images: Number of images of 224x224 for B0. Larger images and networks get fewer images, so that each case takes
            about the same time.
    """
    rng = np.random.default_rng(seed)
    share = count_macs(VARIANTS["b0"], 224, 224) / count_macs(VARIANTS[variant], 224, 224)

    def count(times: float, least: int) -> int:
        return max(least, math.ceil(images * times * share))

    return {
        "224x224": [(224, 224)] * count(1, 4),
        "500x375": [(375, 500)] * count(0.5, 2),
        "mixed native sizes": [size[::-1] for size in spread(photo_sizes, count(1, 5))],
        "thumbnails of 64-160 px": [(int(h), int(w)) for h, w in rng.integers(64, 161, (count(4, 16), 2))],
    }


def spread(photo_sizes: list[Size], number: int) -> list[Size]:
    """Returns `number` sizes that represent all sizes.

    The sorted sizes are divided into `number` equal parts, and the middle size of each part is taken.
    """
    ordered = sorted(photo_sizes, key=lambda size: (size[0] * size[1], size))
    return [ordered[(2 * part + 1) * len(ordered) // (2 * number)] for part in range(number)]


def measure(case: Case) -> list[dict[str, Any]]:
    """Returns one row for each contender in a case; the caller runs each case in a process of its own."""
    torch.set_num_threads(1)
    if case.is_tuned:
        tune_allocator()
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator) for size in case.sizes]
    network = random_weights(VARIANTS[case.variant], 0)
    runs: dict[tuple[Precision, str], tuple[Run, str]] = {}
    for precision in case.precisions:
        runs[precision, OURS] = (_packed(network, precision, images), precision)
    for name, peer in peers(network, case.variant).items():
        for precision in case.precisions:
            seconds = {
                (number, setting): _look(peer, setting, _batch(images, number))
                for number in batch_sizes(case.sizes)
                for setting in settings(precision)
            }
            one_by_one = fastest({key: taken for key, taken in seconds.items() if _is_plain(*key)})
            runs[precision, f"{name}, batch 1"] = _in_batches(peer, images, *one_by_one)
            runs[precision, f"{name}, at its best"] = _in_batches(peer, images, *fastest(seconds))
    expected = _one_by_one(network, images)
    logits = {key: run() for key, (run, _) in runs.items()}  # these runs also warm up
    taken_s: dict[tuple[Precision, str], list[float]] = {key: [] for key in runs}
    round_s = 0.0
    for number in range(case.rounds):
        before = time.perf_counter()
        if number >= MIN_ROUNDS and before - started + round_s > case.case_s:
            break
        for key, (run, _) in runs.items():
            began = time.perf_counter()
            run()
            taken_s[key].append(time.perf_counter() - began)
        round_s = time.perf_counter() - before
    return [
        {
            "case": case.name,
            "allocator": "tuned" if case.is_tuned else "default",
            "precision": precision,
            "contender": name,
            "images": len(images),
            "setting": runs[precision, name][1],
            "ms_per_image": round(1000 * statistics.median(taken) / len(images), 2),
            "ours_times_as_fast": times_as_fast(taken_s[precision, OURS], taken),
            "largest_difference": float((logits[precision, name] - expected).abs().max()),
            "labels_that_differ": int((logits[precision, name].argmax(1) != expected.argmax(1)).sum()),
            "logits_std": round(float(expected.std()), 3),
            "seconds": [round(each, 4) for each in taken],
        }
        for (precision, name), taken in taken_s.items()
    ]


def times_as_fast(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Returns the median over the rounds of a peer's seconds divided by ours."""
    return round(statistics.median(b / a for a, b in zip(ours, theirs, strict=True)), 3)


def _packed(network: PVTv2, precision: Precision, images: list[Tensor]) -> Run:
    """Returns a run of our network over all images in packs, as in an infer actor."""
    if precision == "bf16":
        network = random_weights(network.config, 0).to(torch.bfloat16)
    packed = PackedPVTv2(network)

    def run() -> Tensor:
        logits = torch.empty(len(images), network.config.num_classes)
        for pack in plan_packs([(image.shape[0], image.shape[1]) for image in images], BUDGET):
            logits[pack] = packed.run([images[i] for i in pack]).logits
        return logits

    return run


def _in_batches(peer: Peer, images: list[Tensor], most: int, chosen: dict[int, Setting]) -> tuple[Run, str]:
    """Returns a peer's run over all images in batches of one size, and a description of its settings."""
    batches = equal_batches([(image.shape[0], image.shape[1]) for image in images], most)
    used = sorted({len(batch) for batch in batches})

    def run() -> Tensor:
        parts = [peer([images[i] for i in batch], setting_for(len(batch), chosen)) for batch in batches]
        logits = torch.empty(len(images), parts[0].shape[1])
        for batch, part in zip(batches, parts, strict=True):
            logits[batch] = part
        return logits

    return run, "; ".join(f"{number} to a batch: {setting_for(number, chosen)}" for number in used)


def _is_plain(number: int, setting: Setting) -> bool:
    return number == 1 and not setting.channels_last


def _batch(images: list[Tensor], number: int) -> list[Tensor]:
    """Returns the first `number` images of the most frequent size."""
    size, _ = commonest([(image.shape[0], image.shape[1]) for image in images])
    return [image for image in images if image.shape[:2] == size][:number]


def _look(peer: Peer, setting: Setting, batch: list[Tensor]) -> float:
    """Returns the seconds for one image of a batch, over several runs after a first run; a long first run is enough."""
    began = time.perf_counter()
    peer(batch, setting)
    taken = time.perf_counter() - began
    if taken < LOOK_S:
        times = max(1, int(LOOK_S / taken))
        began = time.perf_counter()
        for _ in range(times):
            peer(batch, setting)
        taken = (time.perf_counter() - began) / times
    return taken / len(batch)


@torch.inference_mode()
def _one_by_one(network: PVTv2, images: list[Tensor]) -> Tensor:
    """Returns the logits of the plain network, with which the logits of all contenders are compared."""
    return torch.cat([network(normalised(image[None]).permute(0, 3, 1, 2)) for image in images])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--variant", choices=VARIANTS, default="b0")
    parser.add_argument("--sizes", type=Path, help="CSV with width,height,count; default: a few common sizes")
    parser.add_argument("--images", type=int, default=8, help="of 224x224 for B0; the other cases follow")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case-s", type=float, default=55.0, help="a case begins no third round that would end later")
    parser.add_argument("--allocators", nargs="+", choices=ALLOCATORS, default=ALLOCATORS)
    parser.add_argument("--precisions", nargs="+", choices=get_args(Precision), default=get_args(Precision))
    parser.add_argument("--only", default="", metavar="TEXT", help="run the cases whose name holds this")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    started = time.perf_counter()
    by_case = sizes_of_cases(flags.variant, read_sizes(flags.sizes), flags.images, flags.seed)
    results: list[dict[str, Any]] = []
    for allocator in flags.allocators:
        for name, sizes in by_case.items():
            if flags.only not in name:
                continue
            case = Case(
                name=name,
                variant=flags.variant,
                sizes=sizes,
                is_tuned=allocator == "tuned",
                precisions=tuple(flags.precisions),
                rounds=flags.rounds,
                case_s=flags.case_s,
            )
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                rows = process.submit(measure, case).result()
            for row in rows:
                print({key: value for key, value in row.items() if key != "seconds"}, flush=True)
            results += rows
    found = versions(PACKAGES)
    report = {
        "benchmark": "model",
        "variant": flags.variant,
        "threads": 1,
        "compiled_kernels": is_compiled(),
        "left_out": [] if "timm" in found else ["timm: not installed"],
        "results": results,
        "versions": found,
        "machine": machine(),
        "command": command("benchmarks.network.cpu", sys.argv[1:]),
        "seconds": round(time.perf_counter() - started, 1),
    }
    flags.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
