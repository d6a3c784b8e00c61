"""The infer step: the images of a chunk go through the network in packs, and their outputs become rows; without Ray."""

import logging
import threading
import time
import warnings
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
import torch

from model.checkpoints.load import parse_checkpoint
from model.network.cost import count_macs
from model.packed import PackedOutput, PackedPVTv2
from pipeline.chunks.chunk import Chunk, set_columns
from pipeline.chunks.columns import PAYLOAD_COLUMNS
from pipeline.chunks.failures import ErrorCode
from pipeline.chunks.measures import process_number
from pipeline.chunks.task import Classify, ClassifyAtSizes, ExtractFeatures
from pipeline.infer.allocator import Trimmer, tune_allocator
from pipeline.infer.config import InferConfig
from pipeline.infer.matmul_peak import peak_gflops
from pipeline.infer.output_columns import Answers, ClassAnswers, FeatureAnswers, folded
from pipeline.infer.packs import Budget, num_tokens, plan_packs

logger = logging.getLogger(__name__)

# On a CPU a pack should stay near its cache; on a GPU it should keep thousands of cores busy.
BUDGETS = {"cpu": Budget(tokens=2**14, pairs=2**24), "cuda": Budget(tokens=2**18, pairs=2**28)}
# On a GPU the packs of the next chunk are queued behind the packs that run, so that the GPU never waits for the host.
_AHEAD = {"cpu": 0, "cuda": 1}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_CATCHING = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Images:
    """The images of a chunk.

    Attributes:
        chunk: Chunk of pixels.
        by_row: Readable images by the index of their row: HWC uint8 tensors, views of the chunk's memory.
        seconds: Seconds that it took to find the images.
    """

    chunk: Chunk
    by_row: dict[int, torch.Tensor]
    seconds: float


@dataclass(slots=True)
class _Work:
    """A chunk on its way through the network.

    Attributes:
        pending: Packs that were submitted: for each pack, the rows of its images and the function that returns its
            output.
        images: Images of the chunk.
        answers: Answers of the network to the images of the packs that have run.
        refused: Rows of images that do not fit into the device's memory.
        row_s: Seconds of the network by row: each image's share of the seconds of its pack.
        measured: Measurements of the chunk so far, by name.
    """

    images: _Images
    answers: Answers
    pending: deque[tuple[list[int], Callable[[], PackedOutput]]] = field(default_factory=deque)
    refused: set[int] = field(default_factory=set)
    row_s: dict[int, float] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=lambda: defaultdict(float))


class InferStep:
    """A loaded network that turns one chunk of pixels after the other into rows (`pipeline.flow.steps.ActorStep`)."""

    def __init__(self, weights: memoryview | bytes, config: InferConfig) -> None:
        if config.device == "cpu":
            # One process for each core with one thread is faster than several threads that share the caches of a core.
            torch.set_num_threads(1)
            tune_allocator()
        else:
            torch.backends.cudnn.allow_tf32 = False
        loaded = parse_checkpoint(
            weights,
            config.config_json,
            config.preprocessor_json,
            config.variant,
            with_head=isinstance(config.task, Classify),
            with_labels=False,
        )
        self._config = config
        self._network = config.task.network(loaded.config)
        model = loaded.model.to(config.device, _DTYPES[config.precision])
        self._prepare = partial(PackedPVTv2, model, mean=loaded.mean, std=loaded.std)
        self._packed: PackedPVTv2 | None = None
        self.budget = BUDGETS[config.device]
        self.ahead = _AHEAD[config.device]
        self._trimmer = Trimmer()
        self._peak_gflops = peak_gflops(config.device, _DTYPES[config.precision])

    def infer(self, chunk: Chunk) -> Chunk:
        """Returns the chunk with the task's columns in place of pixels."""
        return self.pack(self.submit(self.unpack(chunk))())

    def unpack(self, chunk: Chunk) -> _Images:
        """Returns the readable images of a chunk; may be called in any thread."""
        started = time.perf_counter()
        status = chunk.rows.column("status").to_pylist()
        ok = [index for index, value in enumerate(status) if value == "ok"]
        by_row = dict(zip(ok, _images(chunk, ok), strict=True))
        return _Images(chunk, by_row, time.perf_counter() - started)

    def submit(self, unpacked: _Images) -> Callable[[], _Work]:
        """Submits the images to the network; returns a function that waits for the answers.

        On a CPU, the network has run when `submit` returns. On a GPU, the network may still run.
        """
        started = time.perf_counter()
        work = _Work(unpacked, self._new_answers(unpacked.chunk.rows.num_rows))
        for rows in self._groups(list(unpacked.by_row)):
            sizes = [(unpacked.by_row[row].shape[0], unpacked.by_row[row].shape[1]) for row in rows]
            for pack in plan_packs(sizes, self.budget, linear=self._network.linear, even=self._config.device == "cpu"):
                self._submit([rows[i] for i in pack], work)
        if not self.ahead:
            work.measured["compute_s"] += time.perf_counter() - started
        return lambda: self._wait(work)

    def pack(self, computed: _Work) -> Chunk:
        """Returns the chunk with the answers as columns of its rows; may be called in any thread."""
        started = time.perf_counter()
        chunk = computed.images.chunk
        rows = self._rows(chunk.rows, computed.answers, computed.refused)
        task = self._config.task
        if isinstance(task, ClassifyAtSizes):
            row_s = pa.array([computed.row_s.get(row, 0.0) for row in range(rows.num_rows)], pa.float32())
            rows = folded(rows.append_column("compute_s", row_s), task, self._network)
        return chunk.after(
            "rows",
            started,
            rows,
            unpack_s=computed.images.seconds,
            peak_gflops=self._peak_gflops,
            **computed.measured,
        )

    def _groups(self, rows: list[int]) -> list[list[int]]:
        """Returns rows that may share packs. Each size policy has packs of its own, so that its seconds are its own."""
        task = self._config.task
        num = len(task.policies) if isinstance(task, ClassifyAtSizes) else 1
        return [[row for row in rows if row % num == at] for at in range(num)]

    def _new_answers(self, num_rows: int) -> Answers:
        task = self._config.task
        if isinstance(task, Classify):
            return ClassAnswers(task, self._network, self._config.labels, num_rows)
        return FeatureAnswers(task, self._network, num_rows)

    def _submit(self, rows: list[int], work: _Work) -> None:
        """Submits the images of some rows as one pack, or as smaller packs if one pack runs out of memory."""
        images = [work.images.by_row[row] for row in rows]
        started = time.perf_counter()
        try:
            # Prepared with the first pack: a device without memory for that is a failure of the pack, not of the actor.
            self._packed = self._packed or self._prepare()
            output = self._packed.submit(images, work.answers.outputs)
            if self.ahead:
                work.pending.append((rows, output))
            else:
                self._take(rows, output(), work)
                work.row_s |= dict.fromkeys(rows, (time.perf_counter() - started) / len(rows))
            return
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
        # The call stands outside the `except` block, because the frames of the exception hold the activations.
        self._halve(rows, work)

    def _wait(self, work: _Work) -> _Work:
        """Waits for pending packs and takes their outputs."""
        started = time.perf_counter()
        while work.pending:
            rows, output = work.pending.popleft()
            try:
                self._take(rows, output(), work)
                continue
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
            del output
            self._halve(rows, work)
        self._trimmer.trim_if_due()
        if self.ahead:
            work.measured["download_s"] += time.perf_counter() - started
        work.measured["compute_ended"], work.measured["compute_process"] = time.time(), process_number()
        return work

    def _take(self, rows: list[int], output: PackedOutput, work: _Work) -> None:
        """Takes the answers of a pack that ran, and adds the pack to the measurements.

        If a pack runs out of memory, its halves are measured instead.
        """
        work.answers.take(rows, output)
        tokens = sum(num_tokens(*work.images.by_row[row].shape[:2]) for row in rows)
        work.measured["packs"] += 1
        work.measured["tokens"] += tokens
        work.measured["pack_room"] += max(tokens, self.budget.tokens)
        if output.device_s:
            seconds = output.device_s()
            work.row_s |= dict.fromkeys(rows, seconds.compute / len(rows))
            work.measured["compute_s"] += seconds.compute
            work.measured["upload_s"] += seconds.upload

    def _halve(self, rows: list[int], work: _Work) -> None:
        """Submits the halves of a pack that ran out of memory, and plans later packs as small as the halves.

        If the pack has a single image, the image is refused.
        """
        if self._config.device == "cuda":
            torch.cuda.empty_cache()
        sides = [work.images.by_row[row].shape[:2] for row in rows]
        if len(rows) == 1:
            logger.warning("infer.out_of_memory height=%d width=%d", *sides[0])
            work.refused.add(rows[0])
            return
        tokens = sum(num_tokens(*of_image) for of_image in sides)
        self.budget = self.budget.halved(tokens)
        logger.warning("pack.halved images=%d tokens=%d budget=%d", len(rows), tokens, self.budget.tokens)
        half = len(rows) // 2
        for part in (rows[:half], rows[half:]):
            self._submit(part, work)

    def _rows(self, rows: pa.Table, answers: Answers, refused: set[int]) -> pa.Table:
        """Returns the rows with the job's columns.

        Images that did not fit into memory, and images whose answers are not finite, become failed records.
        """
        names = ("status", "error_code", "error_message", "net_height", "net_width")
        columns = rows.select(names).to_pydict()
        status, codes, messages = (columns[name] for name in names[:3])
        for index in refused:
            status[index], codes[index] = "failed", str(ErrorCode.INFER_OUT_OF_MEMORY)
            messages[index] = "the image alone does not fit into the device's memory; lower --max-image-pixels"
        for index, value in enumerate(status):
            if value == "ok" and not answers.is_finite(index):
                status[index], codes[index] = "failed", str(ErrorCode.INFER_NOT_FINITE)
                messages[index] = _not_finite(self._config)
        good = [value == "ok" for value in status]
        macs = [
            count_macs(self._network, height, width) if ok else 0
            for ok, height, width in zip(good, columns["net_height"], columns["net_width"], strict=True)
        ]
        arrays = {
            "status": pa.array(status, pa.string()),
            "error_code": pa.array(codes, pa.string()),
            "error_message": pa.array(messages, pa.string()),
            **answers.columns(good),
            "macs": pa.array(macs, pa.int64()),
        }
        return set_columns(rows, arrays).drop_columns(PAYLOAD_COLUMNS.names)


def _not_finite(config: InferConfig) -> str:
    """Returns the message of a record whose answer holds a number that is not finite."""
    task = config.task
    if config.precision == "fp16":
        return "the answer is not finite in fp16; --precision fp32, into another --output, has a wider range"
    if isinstance(task, ExtractFeatures) and task.dtype == "float16":
        return (
            f"the answer of {config.precision} is not finite as float16; --feature-dtype float32, into another "
            "--output, has a wider range"
        )
    return f"the answer is not finite in {config.precision}: the weights overflow for this image"


def _images(chunk: Chunk, ok: list[int]) -> list[torch.Tensor]:
    """Returns the readable images as HWC uint8 tensors, which are read-only views of the chunk's memory."""
    pixels = np.frombuffer(chunk.payload, np.uint8)
    columns = chunk.rows.select(["payload_offset", "net_height", "net_width"]).to_pydict()
    images = []
    for index in ok:
        offset, height, width = (columns[name][index] for name in ("payload_offset", "net_height", "net_width"))
        view = pixels[offset : offset + height * width * 3].reshape(height, width, 3)
        images.append(_read_only_tensor(view))
    return images


def _read_only_tensor(view: np.ndarray) -> torch.Tensor:
    """Returns a tensor over read-only memory, without the warning of `torch.from_numpy` about such memory."""
    # Hiding warnings is not thread-safe, and two chunks may be unpacked at a time.
    with _CATCHING, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(view)


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)
