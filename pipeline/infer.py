"""The infer step: decoded chunks -> packs -> the network -> small rows. Plain Python around `model/`; no Ray here."""

import logging
import time
import warnings

import numpy as np
import pyarrow as pa
import torch

from model.config import PVTv2Config
from model.cost import count_macs
from model.packed import run_packed
from model.weights import parse_checkpoint
from pipeline.allocator import Trimmer, tune_allocator
from pipeline.batch import num_tokens, plan_packs
from pipeline.chunk import Chunk, set_columns
from pipeline.config import InferConfig
from pipeline.errors import ErrorCode
from pipeline.schema import CLASSIFY_COLUMNS, PAYLOAD_COLUMNS

logger = logging.getLogger(__name__)

# Tokens of stage 1 (one for every 4x4 pixels) in a pack: what the activations' memory is proportional to. On a CPU a
# pack should stay near its cache; on a GPU it should keep thousands of cores busy.
TOKEN_BUDGET = {"cpu": 16 * 1024, "cuda": 256 * 1024}


class Classifier:
    """A loaded network and what it needs to turn one chunk of pixels into rows."""

    def __init__(self, weights: memoryview | bytes, config: InferConfig) -> None:
        if config.device == "cpu":
            # One process a core, one thread a process: faster than threads that share a core's caches.
            torch.set_num_threads(1)
            tune_allocator()
        else:
            torch.backends.cudnn.allow_tf32 = False
        loaded = parse_checkpoint(weights, config.config_json, config.preprocessor_json, config.variant)
        self.config = config
        self.network: PVTv2Config = loaded.config
        self.model = loaded.model.to(config.device)
        self.mean, self.std = loaded.mean, loaded.std
        self.top_k = min(config.top_k, loaded.config.num_classes)
        self.token_budget = TOKEN_BUDGET[config.device]
        self._trimmer = Trimmer()

    def classify(self, chunk: Chunk) -> Chunk:
        """The chunk with labels in place of pixels."""
        started = time.perf_counter()
        rows = chunk.rows
        ok = [index for index, status in enumerate(rows.column("status").to_pylist()) if status == "ok"]
        images = _images(chunk, ok)
        scores = np.full((rows.num_rows, self.top_k), np.nan, np.float32)
        ids = np.full((rows.num_rows, self.top_k), -1, np.int32)
        too_large: list[int] = []
        for pack in plan_packs([(image.shape[0], image.shape[1]) for image in images], self.token_budget):
            done, refused = self._run([images[i] for i in pack])
            too_large += [ok[pack[i]] for i in refused]
            for i, (image_scores, image_ids) in done.items():
                scores[ok[pack[i]]], ids[ok[pack[i]]] = image_scores, image_ids
        self._trimmer.trim_if_due()
        return chunk.with_step("infer_s", started, self._rows(rows, scores, ids, too_large))

    def _run(self, images: list[torch.Tensor]) -> tuple[dict[int, tuple[np.ndarray, np.ndarray]], list[int]]:
        """Scores and class ids of each image by its index, and the indexes of images that do not fit alone.

        A pack that runs out of memory is halved and run again, and the packs of later chunks are planned as small.
        """
        try:
            output = run_packed(self.model, images, mean=self.mean, std=self.std, outputs=("logits",))
            assert output.logits is not None
            scores_BK, ids_BK = output.logits.float().softmax(-1).topk(self.top_k, dim=-1)
            scores, ids = scores_BK.cpu().numpy(), ids_BK.cpu().numpy().astype(np.int32)
            return {i: (scores[i], ids[i]) for i in range(len(images))}, []
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
        # Outside the handler: the exception's frames hold the activations.
        if self.config.device == "cuda":
            torch.cuda.empty_cache()
        if len(images) == 1:
            logger.warning("infer.out_of_memory height=%d width=%d", *images[0].shape[:2])
            return {}, [0]
        tokens = sum(num_tokens(*image.shape[:2]) for image in images)
        self.token_budget = max(1, min(self.token_budget, tokens // 2))
        logger.warning("pack.halved images=%d token_budget=%d", len(images), self.token_budget)
        half = len(images) // 2
        first, refused = self._run(images[:half])
        second, also_refused = self._run(images[half:])
        done = {**first, **{half + i: value for i, value in second.items()}}
        return done, refused + [half + i for i in also_refused]

    def _rows(self, rows: pa.Table, scores: np.ndarray, ids: np.ndarray, too_large: list[int]) -> pa.Table:
        """The rows with the job's columns; images that did not fit become failed records."""
        columns = rows.to_pydict()
        status, codes, messages = columns["status"], columns["error_code"], columns["error_message"]
        for index in too_large:
            status[index], codes[index] = "failed", str(ErrorCode.INFER_OUT_OF_MEMORY)
            messages[index] = "the image alone does not fit into the device's memory; lower --max-image-pixels"
        good = [value == "ok" for value in status]
        labels = self.config.labels
        values = {
            "label_id": [int(ids[i, 0]) if ok else None for i, ok in enumerate(good)],
            "label": [labels[ids[i, 0]] if ok and labels else None for i, ok in enumerate(good)],
            "score": [float(scores[i, 0]) if ok else None for i, ok in enumerate(good)],
            "topk_ids": [ids[i].tolist() if ok else None for i, ok in enumerate(good)],
            "topk_scores": [scores[i].tolist() if ok else None for i, ok in enumerate(good)],
        }
        macs = [
            count_macs(self.network, height, width) if ok else 0
            for ok, height, width in zip(good, columns["net_height"], columns["net_width"], strict=True)
        ]
        arrays = {
            "status": pa.array(status, pa.string()),
            "error_code": pa.array(codes, pa.string()),
            "error_message": pa.array(messages, pa.string()),
            **{name: pa.array(values[name], CLASSIFY_COLUMNS.field(name).type) for name in CLASSIFY_COLUMNS.names},
            "macs": pa.array(macs, pa.int64()),
        }
        return set_columns(rows, arrays).drop_columns(PAYLOAD_COLUMNS.names)


def _images(chunk: Chunk, ok: list[int]) -> list[torch.Tensor]:
    """The readable images as HWC uint8 tensors: views on the chunk's memory, which is never written to."""
    pixels = np.frombuffer(chunk.payload, np.uint8)
    columns = chunk.rows.select(["payload_offset", "net_height", "net_width"]).to_pydict()
    images = []
    for index in ok:
        offset, height, width = (columns[name][index] for name in ("payload_offset", "net_height", "net_width"))
        view = pixels[offset : offset + height * width * 3].reshape(height, width, 3)
        images.append(_read_only_tensor(view))
    return images


def _read_only_tensor(view: np.ndarray) -> torch.Tensor:
    """A tensor over read-only memory. `torch.from_numpy` warns that writing to it would be undefined; nobody does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(view)


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)
