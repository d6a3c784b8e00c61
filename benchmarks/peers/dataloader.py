"""A plain script around PyTorch's DataLoader, one process a core: a process loads every n-th image and runs a network.

`--engine transformers` runs transformers' network image by image. `--engine ours` runs our network in packs from a few
dozen images, which is the decoding and the network of our job without its other steps.

    python -m benchmarks.peers.dataloader --input FOLDER --weights FOLDER --output FOLDER --engine transformers|ours
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset

from model import PackedPVTv2, load_checkpoint
from pipeline.infer.allocator import tune_allocator
from pipeline.infer.packs import Budget, plan_packs

BUDGET = Budget(tokens=2**14, pairs=2**24)  # the budget of an infer actor
# Number of images from which packs are made, about as many as one chunk of our job holds.
IMAGES_TO_PACK = 32

Answers = tuple[np.ndarray, np.ndarray]


class Images(Dataset):
    """A data set with (path, pixels HWC uint8) of each file."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, torch.Tensor]:
        with Image.open(self.paths[index]) as image:
            pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        return str(self.paths[index]), torch.from_numpy(pixels.copy())


class Theirs:
    """The network of transformers, which runs image by image."""

    images_at_a_time = 1

    def __init__(self, weights: str, precision: str) -> None:
        from benchmarks.peers.network import Network  # our network needs no transformers

        self.network = Network(weights, precision)

    def classify(self, images: list[torch.Tensor]) -> Answers:
        return self.network.classify([image.numpy() for image in images])


class Ours:
    """Our network, as an infer actor runs it."""

    images_at_a_time = IMAGES_TO_PACK

    def __init__(self, weights: str, precision: str) -> None:
        torch.set_num_threads(1)
        tune_allocator()
        loaded = load_checkpoint(weights)
        model = loaded.model.to(torch.bfloat16 if precision == "bf16" else torch.float32)
        self.network = PackedPVTv2(model, mean=loaded.mean, std=loaded.std)

    def classify(self, images: list[torch.Tensor]) -> Answers:
        ids, scores = np.zeros(len(images), np.int32), np.zeros(len(images), np.float32)
        for pack in plan_packs([(image.shape[0], image.shape[1]) for image in images], BUDGET):
            output = self.network.run([images[index] for index in pack])
            best, which = output.logits.softmax(-1).max(-1)
            ids[pack], scores[pack] = which.numpy(), best.numpy()
        return ids, scores


ENGINES = {"transformers": Theirs, "ours": Ours}


def classify_part(
    rank: int, processes: int, paths: list[Path], weights: str, precision: str, output: Path, engine: str
) -> None:
    """Classifies every n-th image, and writes one Parquet file; n is the number of processes."""
    network = ENGINES[engine](weights, precision)
    loader = DataLoader(
        Images(paths[rank::processes]), batch_size=network.images_at_a_time, num_workers=1, collate_fn=list
    )
    tables = []
    for batch in loader:
        names, images = zip(*batch, strict=True)
        ids, scores = network.classify(list(images))
        done_at = np.full(len(names), time.time())
        tables.append(pa.table({"path": names, "label_id": ids, "score": scores, "done_at": done_at}))
    pq.write_table(pa.concat_tables(tables), output / f"{rank:02d}.parquet")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--engine", choices=ENGINES, required=True)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    flags = parser.parse_args()
    flags.output.mkdir(parents=True)
    paths = sorted(flags.input.iterdir())
    arguments = (flags.processes, paths, flags.weights, flags.precision, flags.output, flags.engine)
    torch.multiprocessing.start_processes(classify_part, arguments, flags.processes, start_method="fork")


if __name__ == "__main__":
    main()
