"""The job in Daft, as in the documentation of Daft: paths -> download -> decode -> a class -> Parquet.

The class holds transformers' PVTv2, with one process of one thread on each core. Images of one size run together.

    python -m benchmarks.peers.daft_job --input FOLDER --weights FOLDER --output FOLDER
"""

import argparse
import os
import time

os.environ.setdefault("DO_NOT_TRACK", "true")  # Daft sends no telemetry

import daft
from daft import DataType
from daft.functions import decode_image, download

from benchmarks.peers.network import Network

BATCH_SIZE = 16
ANSWER = DataType.struct({"label_id": DataType.int32(), "score": DataType.float32(), "done_at": DataType.float64()})


@daft.cls(max_concurrency=os.cpu_count(), use_process=True)
class Classifier:
    """PVTv2 over images that may differ in size."""

    def __init__(self, weights: str, precision: str) -> None:
        self.network = Network(weights, precision)

    @daft.method.batch(return_dtype=ANSWER, unnest=True, batch_size=BATCH_SIZE)
    def classify(self, images: daft.Series) -> list[dict]:
        ids, scores = self.network.classify(images.to_pylist())
        done_at = time.time()
        return [
            {"label_id": int(label_id), "score": float(score), "done_at": done_at}
            for label_id, score in zip(ids, scores, strict=True)
        ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    flags = parser.parse_args()
    images = daft.from_glob_path(f"{flags.input}/*").with_column("image", decode_image(download(daft.col("path"))))
    answers = Classifier(flags.weights, flags.precision).classify(images["image"])
    images.select(daft.col("path"), answers).write_parquet(flags.output)


if __name__ == "__main__":
    main()
