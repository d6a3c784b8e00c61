"""A sample of a run's images, for its page: which images it has, and what is told of each.

It is those whose ids have the smallest hashes: spread over the run, and the same ones in whatever order they come.
"""

import base64
import hashlib
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from heapq import nsmallest
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.chunks.columns import SAMPLE_COLUMNS

MOST_SAMPLES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image of the sample.

    Attributes:
        label: of its class, or the class's number where it has no name; None where the job labels nothing.
        score: None where the job gives none, or the network gave no number.
        width, height: native size.
        jpeg: its thumbnail.
    """

    image_id: str
    shard: str
    label: str | None
    score: float | None
    width: int
    height: int
    jpeg: bytes

    def to_dict(self) -> dict[str, Any]:
        """The sample as `report.json` holds it."""
        fields = asdict(self)
        jpeg = fields.pop("jpeg")
        return {**fields, "thumbnail": base64.b64encode(jpeg).decode()}


def rank(image_id: str) -> bytes:
    """An image's place in the draw."""
    return hashlib.blake2b(image_id.encode(), digest_size=8).digest()


def smallest(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """The first `MOST_SAMPLES` in the draw, in its order, each once."""
    return tuple(nsmallest(MOST_SAMPLES, set(samples), key=lambda sample: (rank(sample.image_id), sample.image_id)))


def num_offered(num_wanted: int, least_chunks: int) -> int:
    """How many images each chunk offers to the sample, so that all together offer twice what is wanted.

    Args:
        least_chunks: the run has no fewer, as far as is known.
    """
    return min(num_wanted, 1 + 2 * num_wanted // max(1, least_chunks))


def samples_of(ok: pa.Table) -> tuple[Sample, ...]:
    """The sample of some rows, none of which failed; empty if nobody asked for thumbnails."""
    (column,) = SAMPLE_COLUMNS.names
    if column not in ok.schema.names:
        return ()
    wanted = ("image_id", "shard", "label", "label_id", "score", "width", "height", column)
    offered = ok.filter(pc.is_valid(ok.column(column))).select([name for name in wanted if name in ok.schema.names])
    return smallest(_sample(row, row[column].rstrip(b"\0")) for row in offered.to_pylist())


def _sample(row: dict[str, Any], jpeg: bytes) -> Sample:
    label, number, score = (row.get(name) for name in ("label", "label_id", "score"))
    return Sample(
        image_id=row["image_id"],
        shard=row["shard"],
        label=str(number) if label is None and number is not None else label,
        score=round(score, 6) if score is not None and math.isfinite(score) else None,
        width=row["width"],
        height=row["height"],
        jpeg=jpeg,
    )
