"""A sample of a run's images, for the run's page.

The sample holds the images whose ids have the smallest hashes. So the sample is spread over the run, and the order in
which images arrive does not change it.
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
        label: Name of the image's class, or the class's number if it has no name; None in a job without labels.
        score: Score of the label; None in a job without scores, or for a score that is not finite.
        width, height: Native size of the image in pixels.
        jpeg: Thumbnail of the image, encoded as JPEG.
    """

    image_id: str
    shard: str
    label: str | None
    score: float | None
    width: int
    height: int
    jpeg: bytes

    def to_dict(self) -> dict[str, Any]:
        """Returns the image as `report.json` holds it."""
        fields = asdict(self)
        jpeg = fields.pop("jpeg")
        return {**fields, "thumbnail": base64.b64encode(jpeg).decode()}


def rank(image_id: str) -> bytes:
    """Returns the hash of an image's id, by which the images of a sample are chosen and ordered."""
    return hashlib.blake2b(image_id.encode(), digest_size=8).digest()


def smallest(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Returns the `MOST_SAMPLES` images with the smallest ranks, in the order of their ranks, each image once."""
    return tuple(nsmallest(MOST_SAMPLES, set(samples), key=lambda sample: (rank(sample.image_id), sample.image_id)))


def num_offered(num_wanted: int, least_chunks: int) -> int:
    """Returns how many images each chunk offers to the sample; all chunks together offer twice the wanted number.

    Args:
        least_chunks: Smallest number of chunks that the run can have, as far as is known.
    """
    return min(num_wanted, 1 + 2 * num_wanted // max(1, least_chunks))


def samples_of(ok: pa.Table) -> tuple[Sample, ...]:
    """Returns the sample of some rows, none of which failed; empty if the rows have no thumbnails."""
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
