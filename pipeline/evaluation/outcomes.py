"""The answers to labelled images, image by image, for comparisons of several sizes on the same images."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.evaluation.true_labels import Truth

COLUMNS = (
    *("image_id", "status", "true_label", "width", "height", "net_width", "net_height"),
    *("label_id", "score", "topk_ids"),
)


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """The answers to the images whose true class is known and that have a prediction, sorted by the id.

    Classes that share a name count as the first of them.

    Attributes:
        image_id: Ids of the images.
        true_id, label_id: True class, and the network's best class.
        is_listed: True where the true class is among the classes that the row lists.
        score: Softmax score of the best class, float32.
        shorter_px: Native shorter side.
        net_size: (height, width) that the network saw, of shape (N, 2).
    """

    image_id: npt.NDArray[np.str_]
    true_id: npt.NDArray[np.int64]
    label_id: npt.NDArray[np.int64]
    is_listed: npt.NDArray[np.bool_]
    score: npt.NDArray[np.float32]
    shorter_px: npt.NDArray[np.int64]
    net_size: npt.NDArray[np.int64]

    @property
    def is_right(self) -> npt.NDArray[np.bool_]:
        """True where the network's best class is the true class."""
        return self.true_id == self.label_id

    def of(self, image_ids: npt.NDArray[np.str_]) -> "Outcomes":
        """Returns the outcomes of some images, sorted by the id; all of them must be among these outcomes."""
        return self.take(np.searchsorted(self.image_id, image_ids))

    def take(self, rows: npt.NDArray[np.int64]) -> "Outcomes":
        """Returns the outcomes with some indexes, in the order of the indexes."""
        return Outcomes(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})


def outcomes(tables: Iterable[pa.Table], truth: Truth) -> Outcomes:
    """Returns the outcomes in the rows of a classification.

    Args:
        tables: Rows with the columns `COLUMNS`.
        truth: Classes of the true labels.
    """
    parts = [_outcomes(table, truth) for table in tables]
    whole = Outcomes(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in Outcomes.__dataclass_fields__}
    )
    return whole.take(np.argsort(whole.image_id, kind="stable"))


def _outcomes(rows: pa.Table, truth: Truth) -> Outcomes:
    true_id = np.array([truth.classes.get(text, -1) for text in rows.column("true_label").to_pylist()], np.int64)
    is_ok = np.array(rows.column("status").to_pylist()) == "ok"
    score = rows.column("score").to_numpy().astype(np.float32)
    seen = np.flatnonzero((true_id >= 0) & is_ok & np.isfinite(score))
    taken = rows.take(pa.array(seen))
    same = np.asarray(truth.same, np.int64)
    width, height, net_width, net_height, label_id = (
        taken.column(name).to_numpy().astype(np.int64)
        for name in ("width", "height", "net_width", "net_height", "label_id")
    )
    ranked = [same[ids] for ids in taken.column("topk_ids").to_pylist()]
    is_listed = [true in ids for true, ids in zip(true_id[seen], ranked, strict=True)]
    return Outcomes(
        image_id=np.array(taken.column("image_id").to_pylist(), np.str_),
        true_id=true_id[seen],
        label_id=same[label_id] if len(seen) else label_id,
        is_listed=np.array(is_listed, np.bool_),
        score=score[seen],
        shorter_px=np.minimum(width, height),
        net_size=np.stack([net_height, net_width], axis=1),
    )
