"""The changes that one run makes to a data set: a row for each changed image, the sums, and the drift."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.dataset.database import Database
from pipeline.dataset.drift import SCORE_BINS, Drift, DriftWithinSizes, find_drift, find_drift_within_sizes
from pipeline.dataset.labels import count_decisions
from pipeline.evaluation.evaluation import BAND_SIDES_PX

CHANGE_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("change", pa.string(), nullable=False),
        pa.field("flipped", pa.bool_(), nullable=False),
        pa.field("label_before", pa.string()),
        pa.field("label", pa.string()),
        pa.field("decision_before", pa.string()),
        pa.field("decision", pa.string()),
        pa.field("label_source", pa.string()),
        pa.field("score_before", pa.float32()),
        pa.field("score", pa.float32()),
    ]
)

# `added`: the image is new. `removed`: the image is gone. `changed`: another image has taken its place.
# `relabelled`: a retry, a correction or another policy changed the row of the same image.
KINDS = ("added", "changed", "removed", "relabelled")

_CHANGES = """
    CREATE TABLE changes AS
    SELECT * FROM (
        SELECT coalesce(l.image_id, b.image_id) AS image_id,
            CASE
                WHEN b.image_id IS NULL THEN 'added'
                WHEN l.image_id IS NULL THEN 'removed'
                WHEN NOT l.is_same_image THEN 'changed'
                WHEN (l.decision, l.reason, l.label, l.label_source, l.model_label, l.score)
                    IS DISTINCT FROM (b.decision, b.reason, b.label, b.label_source, b.model_label, b.score)
                    THEN 'relabelled'
            END AS change,
            coalesce(b.label <> l.label, false) AS flipped,
            b.label AS label_before, l.label, b.decision AS decision_before, l.decision, l.label_source,
            b.score AS score_before, l.score,
            -- Images that the network labelled for the first time, in their present version.
            l.model_label IS NOT NULL AND (b.model_label IS NULL OR NOT l.is_same_image) AS is_new
        FROM labels l FULL JOIN before b USING (image_id)
    ) WHERE change IS NOT NULL
"""

# Rows of images that the network labelled for the first time: added or changed images, and images that failed before.
_NEW = "(FROM labels SEMI JOIN (FROM changes WHERE is_new) USING (image_id))"
_EARLIER = "before WHERE model_label IS NOT NULL"
# Images are counted by class and band of sizes. All bins of scores have the same width; each bin contains its lower
# bound.
_BAND = " + ".join(f"(least(width, height) >= {side})::INTEGER" for side in BAND_SIDES_PX[1:])
_COUNTED = f"SELECT {{name}}, coalesce({_BAND}, 0), count(*) FROM {{table}} GROUP BY 1, 2"
_LABEL = "model_label"
_SCORE_BIN = f"least(floor(score * {SCORE_BINS}), {SCORE_BINS} - 1)::INTEGER"


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The sums of one run's changes.

    Attributes:
        counts: Number of changed images by kind; `flipped` counts images whose label changed.
        before, now: Number of rows by decision and in total, before and after the run.
        classes: For each label, the number of images before and after the run, and the number of images that gained or
            lost the label.
        drift: Drift of `labels` and of `scores`; None if there are no earlier or no new images.
        within_sizes: The same between images of similar size.
    """

    counts: Mapping[str, int]
    before: Mapping[str, int]
    now: Mapping[str, int]
    classes: Mapping[str, Mapping[str, int]]
    drift: Mapping[str, Drift | None]
    within_sizes: Mapping[str, DriftWithinSizes | None]

    @property
    def is_empty(self) -> bool:
        """True if no image has changed."""
        return not any(self.counts.values())

    @property
    def over(self) -> dict[str, Drift]:
        """The drifts above their limits, by the name of the distribution; without those in `of_sizes_alone`."""
        return {name: drift for name, drift in self._above.items() if name not in self.of_sizes_alone}

    @property
    def of_sizes_alone(self) -> dict[str, Drift]:
        """The drifts above their limits that disappear between images of similar size."""
        return {
            name: drift
            for name, drift in self._above.items()
            if (within := self.within_sizes.get(name)) is not None and within.shows_none
        }

    @property
    def _above(self) -> dict[str, Drift]:
        return {name: drift for name, drift in self.drift.items() if drift is not None and drift.is_over}


def find_changes(database: Database, max_drift: float) -> Changes:
    """Makes the table `changes` from the tables `labels` and `before`; returns the sums."""
    database.run(_CHANGES)
    kinds = database.counts("SELECT change, count(*) FROM changes GROUP BY 1")
    ((flipped,),) = database.rows("SELECT count(*) FROM changes WHERE flipped")
    drift, within = {}, {}
    for name, counted in (("labels", _LABEL), ("scores", _SCORE_BIN)):
        earlier, new = (_by_band(database, counted, table) for table in (_EARLIER, _NEW))
        drift[name] = find_drift(_over_bands(earlier), _over_bands(new), max_drift)
        within[name] = find_drift_within_sizes(earlier, new, max_drift)
    return Changes(
        counts={**{kind: kinds.get(kind, 0) for kind in KINDS}, "flipped": flipped},
        before=count_decisions(database, "before"),
        now=count_decisions(database, "labels"),
        classes=_classes(database),
        drift=drift,
        within_sizes=within,
    )


def change_rows(database: Database) -> Iterator[pa.RecordBatch]:
    """Yields the rows of the table `changes`, ordered by image."""
    names = ", ".join(CHANGE_SCHEMA.names)
    return database.batches(f"SELECT {names} FROM changes ORDER BY image_id", CHANGE_SCHEMA)


def _by_band(database: Database, counted: str, table: str) -> dict[int, dict[str, int]]:
    """Returns the number of images by band of sizes, then by class or bin of scores."""
    found: dict[int, dict[str, int]] = {}
    for name, band, count in database.rows(_COUNTED.format(name=counted, table=table)):
        found.setdefault(band, {})[_bin_name(name)] = count
    return found


def _over_bands(counts: Mapping[int, Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for of_band in counts.values():
        total.update(of_band)
    return dict(total)


def _bin_name(name: Any) -> str:
    return name if isinstance(name, str) else f"{name / SCORE_BINS:.1f}-{(name + 1) / SCORE_BINS:.1f}"


def _classes(database: Database) -> dict[str, dict[str, int]]:
    counting = "SELECT label, count(*) FROM {} WHERE label IS NOT NULL GROUP BY 1"
    before, now = (database.counts(counting.replace("{}", table)) for table in ("before", "labels"))
    moved = "FROM changes WHERE label IS DISTINCT FROM label_before"
    gained = database.counts(f"SELECT label, count(*) {moved} AND label IS NOT NULL GROUP BY 1")
    lost = database.counts(f"SELECT label_before, count(*) {moved} AND label_before IS NOT NULL GROUP BY 1")
    return {
        label: {
            "before": before.get(label, 0),
            "now": now.get(label, 0),
            "gained": gained.get(label, 0),
            "lost": lost.get(label, 0),
        }
        for label in sorted({*before, *now})
    }
