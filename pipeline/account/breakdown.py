"""A breakdown of rows for the report: sizes, labels, scores, examples of failures, slow shards and sample images.

Each published slice gives one breakdown. The driver adds the breakdowns and keeps no rows. A breakdown does not grow
with the run: it counts at most as many labels as a network has classes, and names a few failures and shards.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.account.sums import add_fields
from pipeline.chunks.failures import ErrorCode
from pipeline.chunks.passed_over import add_up, ending_of
from pipeline.chunks.sample import Sample, samples_of, smallest

SIZE_BANDS_PX = (0, 64, 128, 256, 512, 1024, 2048)
"""Lower bounds of the bands of image sizes; a size is the square root of the number of pixels that the network saw."""

SCORE_BINS = 20
_MOST_EXAMPLES = 3
_MOST_SHARDS = 20
_MOST_LABELS = 20_000  # published networks have up to 1,000


@dataclass(frozen=True, kw_only=True)
class Band:
    """Sums over the images of one band of sizes.

    Attributes:
        compute_s: Seconds for which the network ran. The seconds of a slice are divided among its bands in proportion
            to their multiply-accumulates.
    """

    images: int = 0
    pixels: int = 0
    macs: int = 0
    compute_s: float = 0.0

    def __add__(self, other: "Band") -> "Band":
        return add_fields(self, other)


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """The breakdown of some rows: sums, counts and a few examples, whose number does not grow with the rows.

    Attributes:
        bands: Sums for each band of `SIZE_BANDS_PX`.
        labels: Number of rows by label; the key None counts the rows whose class has no name.
        scores: Number of rows in each of `SCORE_BINS` bins from 0 to 1; empty in a job without scores.
        examples: The first few failed records of each error code, as (image_id, error_message).
        shards: The slowest shards by URI, each with its busy seconds and its number of images.
        peak_gflops: Highest speed that an actor's device reached in a matrix product.
        unsupported: Number of images of formats that are not decoded, by the ending of their names.
        samples: Sample images with thumbnails, in the order of `sample.rank`; empty in a job without thumbnails.
    """

    bands: Sequence[Band] = (Band(),) * len(SIZE_BANDS_PX)
    labels: Mapping[str | None, int] = field(default_factory=dict)
    scores: Sequence[int] = ()
    examples: Mapping[str, Sequence[tuple[str, str | None]]] = field(default_factory=dict)
    shards: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    peak_gflops: float = 0.0
    unsupported: Mapping[str, int] = field(default_factory=dict)
    samples: Sequence[Sample] = ()

    def __add__(self, other: "Breakdown") -> "Breakdown":
        labels = Counter(self.labels)
        labels.update(other.labels)
        codes = [*self.examples, *(code for code in other.examples if code not in self.examples)]
        shards = dict(self.shards)
        for shard, (seconds, images) in other.shards.items():
            so_far = shards.get(shard, (0.0, 0))
            shards[shard] = (so_far[0] + seconds, so_far[1] + images)
        return Breakdown(
            bands=tuple(a + b for a, b in zip(self.bands, other.bands, strict=True)),
            labels=dict(labels.most_common(_MOST_LABELS)),
            scores=_add(self.scores, other.scores),
            examples={
                code: (*self.examples.get(code, ()), *other.examples.get(code, ()))[:_MOST_EXAMPLES] for code in codes
            },
            shards=dict(nlargest(_MOST_SHARDS, shards.items(), key=lambda item: item[1][0])),
            peak_gflops=max(self.peak_gflops, other.peak_gflops),
            unsupported=add_up([self.unsupported, other.unsupported]),
            samples=smallest((*self.samples, *other.samples)),
        )


def breakdown_of(rows: pa.Table, compute_s: float, busy_s: float, peak_gflops: float) -> Breakdown:
    """Returns the breakdown of the rows of one slice.

    Args:
        rows: Rows with the output's columns and `macs`, and with thumbnails if the job asks for them.
        compute_s: Seconds for which the network ran on these rows.
        busy_s: Busy seconds of all steps for these rows.
        peak_gflops: Highest speed that an actor's device reached in a matrix product.
    """
    ok = rows.filter(pc.equal(rows.column("status"), "ok"))
    failed = rows.filter(pc.equal(rows.column("status"), "failed"))
    examples: dict[str, list[tuple[str, str | None]]] = {}
    for row in failed.select(["error_code", "image_id", "error_message"]).to_pylist():
        of_code = examples.setdefault(row["error_code"], [])
        if len(of_code) < _MOST_EXAMPLES:
            of_code.append((row["image_id"], row["error_message"]))
    labels: dict[str | None, int] = {}
    scores: list[int] = []
    answered = ok
    if "label" in rows.schema.names:
        # A slice that is written again may keep a row of an earlier version whose score is not finite.
        answered = ok.filter(pc.is_finite(ok.column("score")))
        labels = {entry["values"]: entry["counts"] for entry in answered.column("label").value_counts().to_pylist()}
        scores = np.histogram(answered.column("score").to_numpy(), SCORE_BINS, (0.0, 1.0))[0].tolist()
    shard = rows.column("shard")[0].as_py() if rows.num_rows else None
    return Breakdown(
        bands=_bands(ok, compute_s),
        labels=labels,
        scores=scores,
        examples=examples,
        shards={} if shard is None else {shard: (busy_s, rows.num_rows)},
        peak_gflops=peak_gflops,
        unsupported=_unsupported(failed),
        samples=samples_of(answered),
    )


def _unsupported(failed: pa.Table) -> dict[str, int]:
    keys = failed.filter(pc.equal(failed.column("error_code"), str(ErrorCode.DECODE_UNSUPPORTED))).column("key")
    return add_up([Counter(ending_of(key) for key in keys.to_pylist() if key is not None)])


def _bands(ok: pa.Table, compute_s: float) -> list[Band]:
    width, height, macs = (ok.column(name).to_numpy().astype(np.int64) for name in ("net_width", "net_height", "macs"))
    pixels = width * height
    places = np.searchsorted(SIZE_BANDS_PX, np.sqrt(pixels), side="right") - 1
    images, sums, works = (
        np.bincount(places, weights, minlength=len(SIZE_BANDS_PX)) for weights in (None, pixels, macs)
    )
    total = max(1.0, float(works.sum()))
    return [
        Band(images=int(n), pixels=int(area), macs=int(work), compute_s=float(compute_s * work / total))
        for n, area, work in zip(images, sums, works, strict=True)
    ]


def _add(a: Sequence[int], b: Sequence[int]) -> Sequence[int]:
    return [x + y for x, y in zip(a, b, strict=True)] if a and b else a or b
