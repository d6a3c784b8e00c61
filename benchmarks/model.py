"""The network alone, on one CPU thread: packs of mixed sizes against transformers, as ratios.

    python -m benchmarks.model --variant b0 --sizes sizes.csv --out benchmarks/results/model-b0.json

All contenders run in one process, in turn, with the same weights on the same images; quoted are medians over the
rounds, and ratios round by round. Each case runs in a process of its own, once with glibc's allocator tuned for all
contenders and once as it comes, for all.
"""

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.photos import read_sizes
from model.config import VARIANTS
from model.kernels.library import is_compiled
from model.packed import run_packed
from model.random_weights import random_weights
from model.rename import TRANSFORMERS, TRANSFORMERS_BASE, upstream_names
from model.transformers_config import IMAGENET_MEAN, IMAGENET_STD, write_config
from pipeline.allocator import tune_allocator
from pipeline.batch import Budget, plan_packs

TOKEN_BUDGET = 16 * 1024
PACKAGES = ("torch", "transformers")


def cases(sizes: list[tuple[int, int]], images: int, seed: int) -> dict[str, list[tuple[int, int]]]:
    """(height, width) of the images of each case; none of them is one that anything was tuned on."""
    rng = np.random.default_rng(seed)
    thumbnails = [(int(h), int(w)) for h, w in rng.integers(64, 161, (4 * images, 2))]
    return {
        "224x224": [(224, 224)] * images,
        "500x375": [(375, 500)] * images,
        "mixed native sizes": [sizes[i][::-1] for i in rng.integers(len(sizes), size=images)],
        "thumbnails of 64-160 px": thumbnails,
    }


def contenders(variant: str) -> dict[str, Callable[[list[torch.Tensor]], torch.Tensor]]:
    """Each takes images HWC uint8 and gives their logits, in their order."""
    network = random_weights(VARIANTS[variant], 0)
    theirs = _transformers(network)

    def packed(images: list[torch.Tensor]) -> torch.Tensor:
        logits = torch.empty(len(images), network.config.num_classes)
        for pack in plan_packs([tuple(image.shape[:2]) for image in images], Budget(TOKEN_BUDGET, 2**24)):
            logits[pack] = run_packed(network, [images[i] for i in pack]).logits
        return logits

    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)

    def normalised(images: list[torch.Tensor]) -> torch.Tensor:
        return (torch.stack(images).permute(0, 3, 1, 2) / 255 - mean) / std

    @torch.inference_mode()
    def one_by_one(images: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([theirs(normalised([image])).logits for image in images])

    @torch.inference_mode()
    def in_batches(images: list[torch.Tensor]) -> torch.Tensor:
        """Batches of equal sizes, of as many tokens as our packs."""
        groups: dict[Any, list[int]] = {}
        for index, image in enumerate(images):
            groups.setdefault(image.shape, []).append(index)
        logits = torch.empty(len(images), network.config.num_classes)
        for (height, width, _), indices in groups.items():
            most = max(1, TOKEN_BUDGET * 16 // (height * width))
            for start in range(0, len(indices), most):
                batch = indices[start : start + most]
                logits[batch] = theirs(normalised([images[i] for i in batch])).logits
        return logits

    return {"ours, packed": packed, "transformers, batch 1": one_by_one, "transformers, equal sizes": in_batches}


def _transformers(network: Any) -> Any:
    from transformers import PvtV2Config, PvtV2ForImageClassification

    config = PvtV2Config.from_dict(json.loads(write_config(network.config, None)))
    theirs = PvtV2ForImageClassification(config).eval()
    state = {}
    for name, parameter in network.state_dict().items():
        names = upstream_names(name, TRANSFORMERS, TRANSFORMERS_BASE)
        state |= dict(zip(names, parameter.chunk(len(names)), strict=True))
    theirs.load_state_dict(state)
    return theirs


def measure(variant: str, sizes: list[tuple[int, int]], rounds: int, tuned: bool, answers: Any) -> None:
    """In a process of its own: seconds of each contender in each round."""
    torch.set_num_threads(1)
    if tuned:
        tune_allocator()
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator) for size in sizes]
    runs, logits = contenders(variant), {}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            logits[name] = run(images)
            if number:  # the first is a warm-up
                seconds[name].append(time.perf_counter() - started)
    ours, *others = logits.values()
    answers.put((seconds, max(float((ours - other).abs().max()) for other in others)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--variant", choices=VARIANTS, default="b0")
    parser.add_argument("--sizes", type=Path, help="CSV with width,height,count; default: a few common sizes")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    processes = multiprocessing.get_context("spawn")
    results = []
    for tuned in (True, False):
        for case, sizes in cases(read_sizes(flags.sizes), flags.images, flags.seed).items():
            answers = processes.Queue()
            arguments = (flags.variant, sizes, flags.rounds, tuned, answers)
            process = processes.Process(target=measure, args=arguments)
            process.start()
            seconds, difference = answers.get()
            process.join()
            ours = seconds["ours, packed"]
            results.append(
                {
                    "case": case,
                    "allocator tuned": tuned,
                    "images": len(sizes),
                    "ms_per_image": {k: round(1000 * statistics.median(v) / len(sizes), 2) for k, v in seconds.items()},
                    "times_as_fast": {
                        name: round(statistics.median(b / a for a, b in zip(ours, theirs, strict=True)), 2)
                        for name, theirs in seconds.items()
                    },
                    "largest_difference": difference,
                    "seconds": seconds,
                }
            )
            print({key: results[-1][key] for key in results[-1] if key != "seconds"}, flush=True)
    report = {
        "variant": flags.variant,
        "dtype": "float32",
        "threads": 1,
        "compiled kernels": is_compiled(),
        "results": results,
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        "machine": {"cpus": os.cpu_count(), "processor": platform.processor() or platform.machine()},
    }
    flags.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
