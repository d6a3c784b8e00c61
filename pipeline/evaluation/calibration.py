"""Calibrated scores: one temperature for one network at one size, with the labelled images that chose and judge it.

Half of the images choose, by a hash of their ids: they fit the temperature, and later they choose the score from which
labels are accepted. The other half judge: they say how good both are. No image does both.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ConfigError
from pipeline.evaluation.evaluation import NUM_BINS
from pipeline.evaluation.outcomes import Outcomes
from pipeline.evaluation.temperature import LEAST, MOST, fit_temperature, log_loss, scores_at
from pipeline.store.errors import StoreError
from pipeline.store.store_path import StorePath

LEAST_IMAGES = 50
"""The least number of images in each half; fewer images fit no temperature."""

MOST_FITTED = 20_000
"""The most images that fit a temperature."""

_KEY = b"pvtv2_calibration"
_VERSION = 1
_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("chooses", pa.bool_(), nullable=False),
        pa.field("true_id", pa.int32(), nullable=False),
        pa.field("label_id", pa.int32(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("shorter_px", pa.int32(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How good scores are on the half that judges, without a temperature and with it.

    Attributes:
        chose, judged: Numbers of images in the two halves.
        error_before, error_after: Expected calibration error over 15 bins.
        loss_before, loss_after: Mean negative log-likelihood of the true classes, in nats.
    """

    chose: int
    judged: int
    error_before: float
    error_after: float
    loss_before: float
    loss_after: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A temperature, the network and the size that it belongs to, and the images that it was fitted and judged on.

    Attributes:
        temperature: Number by which logits are divided.
        weights_sha256: Digest of the weights.
        size: Name of the size, such as `square:224`.
        sizes: The size policy, as in the identity of an output.
        precision: Precision of the logits.
        figures: How good the scores are.
        rows: One row for each image, with the columns of `_SCHEMA`; `score` is the calibrated score.
    """

    temperature: float
    weights_sha256: str
    size: str
    sizes: Mapping[str, Any]
    precision: str
    figures: Figures
    rows: pa.Table

    def to_parquet(self) -> bytes:
        """Returns the calibration as a Parquet file, whose metadata hold all but the rows."""
        values = {name: value for name, value in self.__dict__.items() if name != "rows"}
        text = json.dumps({**values, "figures": asdict(self.figures), "version": _VERSION}, sort_keys=True)
        sink = io.BytesIO()
        pq.write_table(
            self.rows.replace_schema_metadata({_KEY: text.encode()}), sink, compression="zstd", write_page_checksum=True
        )
        return sink.getvalue()


def read_calibration(file: StorePath) -> Calibration:
    """Reads a calibration.

    Raises:
        ConfigError: The file is missing, cannot be read, or holds something else.
    """
    try:
        table = pq.read_table(pa.BufferReader(file.read()), page_checksum_verification=True)
        values = json.loads((table.schema.metadata or {})[_KEY])
        if values.pop("version") != _VERSION:
            raise ConfigError(f"--calibration {file.shown} is of a newer version of this job")
        found = Calibration(
            **{**values, "figures": Figures(**values["figures"])}, rows=table.replace_schema_metadata(None)
        )
        if not LEAST <= found.temperature <= MOST or not found.rows.schema.equals(_SCHEMA):
            raise ValueError("its values are not those of a calibration")
    except StoreError as error:
        raise ConfigError(f"--calibration {file.shown} cannot be read: {error}") from error
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--calibration {file.shown} is no calibration: give a file calibration/<size>.parquet of jobs/evaluate.py"
        ) from error
    return found


def calibrate(
    logits_NC: npt.NDArray[np.float32],
    found: Outcomes,
    *,
    same: Sequence[int],
    weights_sha256: str,
    size: str,
    sizes: Mapping[str, Any],
    precision: str,
) -> Calibration | None:
    """Fits a temperature on half of the images and judges it on the others; None for too few images.

    Args:
        logits_NC: Logits of the images of `found`, in the same order.
        found: Answers to labelled images.
        same: For each class, the first class that has the same name.
    """
    chooses_N = choosers(found.image_id)
    if min(chooses_N.sum(), (~chooses_N).sum()) < LEAST_IMAGES:
        return None
    choosing = np.flatnonzero(chooses_N)
    fitted = choosing[sample(found.image_id[choosing], MOST_FITTED)]
    class_N = _best_of_name(logits_NC, found.true_id, same)
    temperature = fit_temperature(logits_NC[fitted], class_N[fitted])
    # The network's own class, before classes of one name were made one.
    best_N = logits_NC.argmax(axis=1)
    before_N, after_N = (np.concatenate(list(_best_scores(logits_NC, best_N, value))) for value in (1.0, temperature))
    judges = ~chooses_N
    judged_NC, true_N = logits_NC[judges], class_N[judges]
    figures = Figures(
        chose=int(chooses_N.sum()),
        judged=int(judges.sum()),
        error_before=calibration_error(before_N[judges], found.is_right[judges]),
        error_after=calibration_error(after_N[judges], found.is_right[judges]),
        loss_before=round(log_loss(judged_NC, true_N, 1.0), 6),
        loss_after=round(log_loss(judged_NC, true_N, temperature), 6),
    )
    columns = [found.image_id, chooses_N, found.true_id, found.label_id, after_N, found.shorter_px]
    table = pa.Table.from_arrays(
        [pa.array(column).cast(field.type) for column, field in zip(columns, _SCHEMA, strict=True)], schema=_SCHEMA
    )
    return Calibration(
        temperature=temperature,
        weights_sha256=weights_sha256,
        size=size,
        sizes=sizes,
        precision=precision,
        figures=figures,
        rows=table,
    )


def choosers(image_ids: npt.NDArray[np.str_]) -> npt.NDArray[np.bool_]:
    """Returns which images choose: half of them, by a hash of the id, so that the choice is the same at every size."""
    return np.array([hashlib.sha256(image_id.encode()).digest()[0] & 1 == 0 for image_id in image_ids], bool)


def sample(image_ids: npt.NDArray[np.str_], most: int) -> npt.NDArray[np.int64]:
    """Returns the indexes of at most `most` images, rising; a hash of the ids chooses, apart from `choosers`."""
    if len(image_ids) <= most:
        return np.arange(len(image_ids))
    ranks = np.array(
        [int.from_bytes(hashlib.sha256(image_id.encode()).digest()[1:9], "big") for image_id in image_ids], np.uint64
    )
    return np.sort(np.argsort(ranks, kind="stable")[:most])


def _best_of_name(
    logits_NC: npt.NDArray[np.float32], true_N: npt.NDArray[np.int64], same: Sequence[int]
) -> npt.NDArray[np.int64]:
    """Returns the true class of each image; of classes that share a name, the one with the highest logit."""
    class_N, first_C = true_N.copy(), np.asarray(same)
    for first, count in zip(*np.unique(first_C, return_counts=True), strict=True):
        if count > 1:
            rows, classes = np.flatnonzero(true_N == first), np.flatnonzero(first_C == first)
            class_N[rows] = classes[logits_NC[np.ix_(rows, classes)].argmax(axis=1)]
    return class_N


def calibration_error(score_N: npt.NDArray[np.float32], is_right_N: npt.NDArray[np.bool_]) -> float:
    """Returns the expected calibration error over 15 bins of equal width (`pipeline.evaluation.evaluation`)."""
    bin_N = np.minimum((score_N.astype(np.float64) * NUM_BINS).astype(int), NUM_BINS - 1)
    gaps = np.bincount(bin_N, is_right_N, NUM_BINS) - np.bincount(bin_N, score_N.astype(np.float64), NUM_BINS)
    return round(float(np.abs(gaps).sum()) / max(1, len(score_N)), 6)


def _best_scores(logits_NC: npt.NDArray[np.float32], best_N: npt.NDArray[np.int64], temperature: float) -> Any:
    for start in range(0, len(best_N), 4096):
        part = slice(start, start + 4096)
        yield scores_at(logits_NC[part], temperature)[np.arange(len(best_N[part])), best_N[part]]
