"""The recipe of Ray's documentation for batch inference on images, with transformers' PVTv2.

`read_images -> map(image processor) -> map_batches(actor) -> write_parquet`, in our words. As documented: each image
goes through transformers' image processor in a task, and one single-threaded actor runs the model on the float
pixels. `--best` is what a careful user makes of it: uint8 until the actor, one single-threaded actor a core, glibc's
allocator tuned, images of one size run together, channels last.

    python benchmarks/peers/ray_recipe.py --input FOLDER --weights FOLDER --output FOLDER [--resize 224] [--best]
"""

import argparse
import ctypes
import json
import os
import time
from collections import defaultdict

import numpy as np
import ray
import torch
from PIL import Image
from ray.data import ActorPoolStrategy
from transformers import PvtImageProcessorPil, PvtV2ForImageClassification

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


class Processor:
    """As documented: the checkpoint's image processor, one image at a time."""

    def __init__(self, weights: str, resize: int | None) -> None:
        size = {"height": resize, "width": resize} if resize else None
        self.processor = PvtImageProcessorPil.from_pretrained(weights, do_resize=resize is not None, size=size)

    def __call__(self, row: dict) -> dict:
        pixels = self.processor(images=Image.fromarray(row["image"]), return_tensors="np")["pixel_values"][0]
        return {"path": row["path"], "pixels": pixels}


class Classifier:
    """The actor: PVTv2 over a batch of images that may differ in size."""

    def __init__(self, weights: str, best: bool) -> None:
        torch.set_num_threads(1)
        if best:
            for parameter in (-1, -3):
                ctypes.CDLL(None).mallopt(parameter, 1 << 30)
        self.model = PvtV2ForImageClassification.from_pretrained(weights).eval()
        self.best = best

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        images = list(batch["image" if self.best else "pixels"])
        scores, ids = np.zeros(len(images), np.float32), np.zeros(len(images), np.int32)
        groups: dict[tuple, list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            groups[image.shape].append(index)
        for group in groups.values():
            pixels = np.stack([images[i] for i in group])
            if self.best:
                normal = ((pixels.astype(np.float32) / 255 - MEAN) / STD).transpose(0, 3, 1, 2)
                tensor = torch.from_numpy(normal).contiguous(memory_format=torch.channels_last)
            else:
                tensor = torch.from_numpy(pixels)
            with torch.inference_mode():
                probabilities = self.model(tensor).logits.softmax(-1)
            best_score, best_id = probabilities.max(-1)
            scores[group], ids[group] = best_score.numpy(), best_id.numpy()
        return {"path": batch["path"], "label_id": ids, "score": scores, "done_at": np.full(len(ids), time.time())}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--resize", type=int)
    parser.add_argument("--best", action="store_true")
    parser.add_argument("--batch-size", type=int, default=16)
    flags = parser.parse_args()
    started = time.time()
    ray.init(address="local", include_dashboard=False, log_to_driver=False, object_store_memory=2 * 2**30)
    ray.data.DataContext.get_current().enable_progress_bars = False
    cores = os.cpu_count() or 1
    size = (flags.resize, flags.resize) if flags.resize and flags.best else None
    images = ray.data.read_images(flags.input, mode="RGB", size=size, include_paths=True)
    if not flags.best:
        images = images.map(Processor(flags.weights, flags.resize).__call__)
    images.map_batches(
        Classifier,
        fn_constructor_args=(flags.weights, flags.best),
        batch_size=flags.batch_size,
        compute=ActorPoolStrategy(size=cores if flags.best else 1),
        num_cpus=0.45 if flags.best else 1,
    ).write_parquet(flags.output)
    ended = time.time()
    table = ray.data.read_parquet(flags.output).to_pandas()
    done = np.sort(table["done_at"].to_numpy())
    late = done[done > done[0]]
    steady = len(late) / (late[-1] - done[0]) if len(late) else 0.0
    summary = {"images": len(table), "seconds": ended - started, "images_per_s": len(table) / (ended - started)}
    print(json.dumps({**summary, "steady_images_per_s": steady}))


if __name__ == "__main__":
    main()
