"""The pattern of clip-retrieval's inference: WebDataset shards -> fixed batches of 224x224 -> files for each shard.

Each process takes every n-th shard, resizes and crops its images, runs transformers' PVTv2 in one thread, and writes
the shard's embeddings as `.npy` and its rows as Parquet at the end of the shard. The script contains no code of
clip-retrieval.

    python -m benchmarks.peers.clip_retrieval_pattern --input FOLDER-OF-TARS --weights FOLDER --output FOLDER
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import webdataset
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks.peers.network import Network

SIDE_PX = 224
BATCH_SIZE = 16


def resized(image: Image.Image) -> np.ndarray:
    """Returns the centre of the image as 224x224 RGB uint8, after its shorter side was resized to 224."""
    scale = SIDE_PX / min(image.size)
    width, height = (max(SIDE_PX, round(side * scale)) for side in image.size)
    left, top = (width - SIDE_PX) // 2, (height - SIDE_PX) // 2
    image = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image.crop((left, top, left + SIDE_PX, top + SIDE_PX)))


def classify_shards(rank: int, processes: int, shards: list[Path], weights: str, precision: str, output: Path) -> None:
    """Classifies every n-th shard, and writes rows and embeddings; n is the number of processes."""
    network = Network(weights, precision)
    for shard in shards[rank::processes]:
        dataset = webdataset.WebDataset(str(shard), shardshuffle=False).decode("pil").to_tuple("__key__", "jpg")
        batches = dataset.map_tuple(str, resized).batched(BATCH_SIZE)
        rows, embeddings = [], []
        for keys, images in DataLoader(batches, batch_size=None, num_workers=1):
            embedding, logits = network.embed(np.asarray(images))
            scores, ids = logits.softmax(-1).max(-1)
            done_at = np.full(len(keys), time.time())
            paths = [f"{key}.jpg" for key in keys]
            rows.append(
                pa.table({"path": paths, "label_id": ids.int().numpy(), "score": scores.numpy(), "done_at": done_at})
            )
            embeddings.append(embedding.numpy())
        np.save(output / f"embeddings_{shard.stem}.npy", np.concatenate(embeddings))
        pq.write_table(pa.concat_tables(rows), output / f"rows_{shard.stem}.parquet")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    flags = parser.parse_args()
    flags.output.mkdir(parents=True)
    shards = sorted(flags.input.glob("*.tar"))
    arguments = (flags.processes, shards, flags.weights, flags.precision, flags.output)
    torch.multiprocessing.start_processes(classify_shards, arguments, flags.processes, start_method="fork")


if __name__ == "__main__":
    main()
