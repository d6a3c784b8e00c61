"""Turns the outputs of the network into columns of a chunk's rows, one row for each image."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
from torch.nn.functional import normalize

from model.network.config import PVTv2Config
from model.packed import Output, PackedOutput
from pipeline.chunks.chunk import set_columns
from pipeline.chunks.columns import BASE_COLUMNS, CLASSIFY_COLUMNS
from pipeline.chunks.task import Classify, ClassifyAtSizes, ExtractFeatures

# The bits of the exponent by the number of bytes; all of them are set if a number is not finite.
_EXPONENTS = {2: 0x7C00, 4: 0x7F800000}


class Answers(Protocol):
    """The answers of the network to the images of one chunk, gathered pack by pack.

    Attributes:
        outputs: Names of the outputs that the task needs from `PackedPVTv2.submit`.
    """

    outputs: Sequence[Output]

    def take(self, rows: Sequence[int], output: PackedOutput) -> None:
        """Takes the outputs of a pack; `rows` has the index of the row of each image in the pack."""

    def is_finite(self, row: int) -> bool:
        """Returns whether all numbers that were taken for a row are finite; call it only after the row was taken."""

    def columns(self, good: Sequence[bool]) -> dict[str, pa.Array]:
        """Returns the task's columns by name, null in the rows that are not `good`; may be called once."""


def keeps_logits(task: Classify) -> bool:
    """Returns whether the rows of a task hold all logits."""
    return isinstance(task, ClassifyAtSizes)


class ClassAnswers:
    """The best classes of each image, with their softmax scores."""

    outputs: Sequence[Output] = ("logits",)

    def __init__(self, task: Classify, network: PVTv2Config, labels: Sequence[str] | None, num_rows: int) -> None:
        self._schema, self._labels = CLASSIFY_COLUMNS, labels
        self._logits = np.zeros((num_rows, network.num_classes), np.float32) if keeps_logits(task) else None
        self._temperature = None if task.scaling is None else task.scaling.temperature
        self._top_k = min(task.top_k, network.num_classes)
        self._scores = np.full((num_rows, self._top_k), np.nan, np.float32)
        self._ids = np.full((num_rows, self._top_k), -1, np.int32)

    def take(self, rows: Sequence[int], output: PackedOutput) -> None:
        """Takes the logits of a pack's images."""
        assert output.logits is not None
        logits_BC = output.logits.float()
        scores_BK, ids_BK = logits_BC.softmax(-1).topk(self._top_k, dim=-1)
        if self._temperature is not None:
            # The classes and their order stay those of the plain scores.
            scores_BK = (logits_BC / self._temperature).softmax(-1).gather(-1, ids_BK)
        # Zeros, which change no score, or NaN for an image with a logit that is not finite. So the host learns from the
        # scores which images these are, without another copy from the device.
        scores_BK = scores_BK + (logits_BC * 0).sum(-1, keepdim=True)
        self._scores[rows], self._ids[rows] = scores_BK.cpu().numpy(), ids_BK.cpu().numpy()
        if self._logits is not None:
            self._logits[rows] = logits_BC.cpu().numpy()

    def is_finite(self, row: int) -> bool:
        """See `Answers`."""
        return bool(np.isfinite(self._scores[row]).all())

    def columns(self, good: Sequence[bool]) -> dict[str, pa.Array]:
        """Returns `label_id`, `label`, `score`, `topk_ids` and `topk_scores`, and `logits` if the task keeps them."""
        ids, scores, labels = self._ids, self._scores, self._labels
        values = {
            "label_id": [int(ids[i, 0]) if ok else None for i, ok in enumerate(good)],
            "label": [labels[ids[i, 0]] if ok and labels else None for i, ok in enumerate(good)],
            "score": [float(scores[i, 0]) if ok else None for i, ok in enumerate(good)],
            "topk_ids": [ids[i].tolist() if ok else None for i, ok in enumerate(good)],
            "topk_scores": [scores[i].tolist() if ok else None for i, ok in enumerate(good)],
        }
        columns = {field.name: pa.array(values[field.name], field.type) for field in self._schema}
        if self._logits is not None:
            bad = pa.array([not ok for ok in good], pa.bool_())
            kind = pa.list_(pa.float32(), self._logits.shape[1])
            columns["logits"] = pa.FixedSizeListArray.from_arrays(
                pa.array(self._logits.reshape(-1)), type=kind, mask=bad
            )
        return columns


class FeatureAnswers:
    """The embedding of each image, and its maps of the requested stages."""

    def __init__(self, task: ExtractFeatures, network: PVTv2Config, num_rows: int) -> None:
        self.outputs: Sequence[Output] = ("embedding", "maps") if task.stages else ("embedding",)
        self._task, self._schema = task, task.columns(network)
        self._dtype = getattr(torch, task.dtype)
        self._embeddings = np.zeros((num_rows, network.embed_dims[-1]), task.dtype)
        self._maps: dict[int, list[np.ndarray | None]] = {stage: [None] * num_rows for stage in task.stages}

    def take(self, rows: Sequence[int], output: PackedOutput) -> None:
        """Takes the embeddings and maps of a pack's images."""
        assert output.embedding is not None
        embedding_NC = output.embedding
        if self._task.l2_normalize:
            # A length that is not finite would make zeros of an embedding.
            has_length_N1 = embedding_NC.norm(dim=-1, keepdim=True).isfinite()
            embedding_NC = normalize(embedding_NC, dim=-1).masked_fill(~has_length_N1, torch.nan)
        self._embeddings[rows] = embedding_NC.to(self._dtype).cpu().numpy()
        for row, maps in zip(rows, output.maps or (), strict=False):
            for stage in self._task.stages:
                # A map is a view on memory that all images of its batch share, and does not lie there as CHW.
                map_CHW = maps[stage - 1].to(self._dtype).contiguous()
                self._maps[stage][row] = map_CHW.cpu().numpy()

    def is_finite(self, row: int) -> bool:
        """See `Answers`."""
        maps = (of_stage[row] for of_stage in self._maps.values())
        return all(_are_finite(values) for values in (self._embeddings[row], *maps) if values is not None)

    def columns(self, good: Sequence[bool]) -> dict[str, pa.Array]:
        """Returns `embedding`, then a column for each requested stage."""
        bad = pa.array([not ok for ok in good], pa.bool_())
        embedding, *stages = self._schema
        columns = {
            embedding.name: pa.FixedSizeListArray.from_arrays(
                pa.array(self._embeddings.reshape(-1)), type=embedding.type, mask=bad
            )
        }
        for field, stage in zip(stages, self._task.stages, strict=True):
            maps = [map_CHW if ok else None for map_CHW, ok in zip(self._maps.pop(stage), good, strict=True)]
            columns[field.name] = _map_column(maps, field.type, bad)
        return columns


def folded(rows: pa.Table, task: ClassifyAtSizes, network: PVTv2Config) -> pa.Table:
    """Returns one row for each record, with the answers of all policies in `at_sizes`.

    A record is `failed` with the reason of the first policy whose answer failed. Its sizes are those of the first
    policy; `macs` is the sum.

    Args:
        rows: Rows of the answers, one for each record and policy, record by record.
    """
    num = len(task.policies)
    (field,) = task.columns(network)
    kinds = list(field.type.value_type)
    answers = pa.StructArray.from_arrays([rows.column(kind.name).combine_chunks() for kind in kinds], fields=kinds)
    offsets = pa.array(np.arange(0, rows.num_rows + 1, num, dtype=np.int32))
    has_failed = np.array([text != "ok" for text in rows.column("status").to_pylist()], bool).reshape(-1, num)
    decisive = np.arange(0, rows.num_rows, num) + has_failed.argmax(axis=1)
    first = rows.take(np.arange(0, rows.num_rows, num)).drop_columns(
        [kind.name for kind in kinds if kind.name not in BASE_COLUMNS.names]
    )
    macs = np.array(rows.column("macs").to_pylist(), np.int64).reshape(-1, num).sum(axis=1)
    reasons = {name: rows.column(name).take(decisive) for name in ("status", "error_code", "error_message")}
    answer_lists = pa.ListArray.from_arrays(offsets, answers, type=field.type)
    return set_columns(first, {**reasons, "macs": pa.array(macs), field.name: answer_lists})


def _are_finite(values: np.ndarray) -> bool:
    """Returns whether all numbers of a contiguous array of float16 or float32 are finite.

    The bits of the exponent decide, since comparing whole numbers is many times as fast as numpy's `isfinite` is for
    float16.
    """
    bits = values.reshape(-1).view(f"u{values.itemsize}")
    exponent = bits.dtype.type(_EXPONENTS[values.itemsize])
    return not bits.size or int((bits & exponent).max()) < exponent


def _map_column(maps: Sequence[np.ndarray | None], kind: pa.StructType, bad: pa.Array) -> pa.Array:
    """Returns a column with a struct for each map: its shape and its values, which lie end to end."""
    shapes = [(0, 0, 0) if map_CHW is None else map_CHW.shape for map_CHW in maps]
    offsets = np.concatenate([[0], np.cumsum([np.prod(shape) for shape in shapes], dtype=np.int64)])
    dtype = kind.field("data").type.value_type.to_pandas_dtype()
    values = np.concatenate([np.empty(0, dtype), *(map_CHW.reshape(-1) for map_CHW in maps if map_CHW is not None)])
    shape = pa.FixedSizeListArray.from_arrays(
        pa.array(np.array(shapes, np.int32).reshape(-1)), type=kind.field("shape").type
    )
    data = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(values), type=kind.field("data").type)
    return pa.StructArray.from_arrays([shape, data], fields=list(kind), mask=bad)
