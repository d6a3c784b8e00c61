"""The recipe of Ray's documentation for batch inference on images, with transformers' PVTv2.

The recipe is `read_images -> map(image processor) -> map_batches(actor) -> write_parquet`, written anew here. As
documented, each image goes through transformers' image processor in a task, and one single-threaded actor runs the
model on the float pixels. `--best` is the recipe of a careful user: uint8 until the actor, one single-threaded actor a
core, glibc's allocator tuned, images of one size run together, channels last.

    python -m benchmarks.peers.ray_recipe --input FOLDER --weights FOLDER --output FOLDER [--resize 224] [--best]
"""

import argparse
import os
import time

import numpy as np
import ray
import torch
from PIL import Image
from ray.data import ActorPoolStrategy
from transformers import PvtImageProcessorPil, PvtV2ForImageClassification

from benchmarks.peers.network import Network, by_size


class Processor:
    """The documented step: the checkpoint's image processor, one image at a time."""

    def __init__(self, weights: str, resize: int | None) -> None:
        size = {"height": resize, "width": resize} if resize else None
        self.processor = PvtImageProcessorPil.from_pretrained(weights, do_resize=resize is not None, size=size)

    def __call__(self, row: dict) -> dict:
        pixels = self.processor(images=Image.fromarray(row["image"]), return_tensors="np")["pixel_values"][0]
        return {"path": row["path"], "pixels": pixels}


class Documented:
    """The documented actor: the model on float pixels; images of one size run together, as mixed sizes cannot."""

    def __init__(self, weights: str) -> None:
        torch.set_num_threads(1)
        self.model = PvtV2ForImageClassification.from_pretrained(weights).eval()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        ids, scores = by_size(list(batch["pixels"]), lambda pixels: self.model(torch.from_numpy(pixels)).logits)
        return {"path": batch["path"], "label_id": ids, "score": scores, "done_at": np.full(len(ids), time.time())}


class Best:
    """The actor of `--best`: the model on bytes."""

    def __init__(self, weights: str, precision: str) -> None:
        self.network = Network(weights, precision)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        ids, scores = self.network.classify(list(batch["image"]))
        return {"path": batch["path"], "label_id": ids, "score": scores, "done_at": np.full(len(ids), time.time())}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--resize", type=int)
    parser.add_argument("--best", action="store_true")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="with --best")
    flags = parser.parse_args()
    ray.init(address="local", include_dashboard=False, log_to_driver=False, object_store_memory=2 * 2**30)
    ray.data.DataContext.get_current().enable_progress_bars = False
    cores = os.cpu_count() or 1
    size = (flags.resize, flags.resize) if flags.resize and flags.best else None
    images = ray.data.read_images(flags.input, mode="RGB", size=size, include_paths=True)
    if not flags.best:
        images = images.map(Processor(flags.weights, flags.resize).__call__)
    images.map_batches(
        Best if flags.best else Documented,
        fn_constructor_args=(flags.weights, flags.precision) if flags.best else (flags.weights,),
        batch_size=flags.batch_size,
        compute=ActorPoolStrategy(size=cores if flags.best else 1),
        num_cpus=0.45 if flags.best else 1,
    ).write_parquet(flags.output)


if __name__ == "__main__":
    main()
