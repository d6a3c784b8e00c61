"""The changes that one run makes to a data set: a row for each changed image, the sums, and the drift."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.dataset.database import Database
from pipeline.dataset.drift import SCORE_BINS, Drift, find_drift
from pipeline.dataset.labels import count_decisions

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
_LABELS_OF = "SELECT model_label, count(*) FROM {} GROUP BY 1"
# All bins have the same width; each bin contains its lower bound.
_SCORES_OF = "SELECT least(floor(score * {bins}), {bins} - 1)::INTEGER AS bin, count(*) FROM {} GROUP BY 1"


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The sums of one run's changes.

    Attributes:
        counts: Number of changed images by kind; `flipped` counts images whose label changed.
        before, now: Number of rows by decision and in total, before and after the run.
        classes: For each label, the number of images before and after the run, and the number of images that gained or
            lost the label.
        drift: Drift of `labels` and of `scores`; None if there are no earlier or no new images.
    """

    counts: Mapping[str, int]
    before: Mapping[str, int]
    now: Mapping[str, int]
    classes: Mapping[str, Mapping[str, int]]
    drift: Mapping[str, Drift | None]

    @property
    def is_empty(self) -> bool:
        """True if no image has changed."""
        return not any(self.counts.values())

    @property
    def over(self) -> dict[str, Drift]:
        """The drifts above their limits, by the name of the distribution."""
        return {name: drift for name, drift in self.drift.items() if drift is not None and drift.is_over}


def find_changes(database: Database, max_drift: float) -> Changes:
    """Makes the table `changes` from the tables `labels` and `before`; returns the sums."""
    database.run(_CHANGES)
    kinds = database.counts("SELECT change, count(*) FROM changes GROUP BY 1")
    ((flipped,),) = database.rows("SELECT count(*) FROM changes WHERE flipped")
    return Changes(
        counts={**{kind: kinds.get(kind, 0) for kind in KINDS}, "flipped": flipped},
        before=count_decisions(database, "before"),
        now=count_decisions(database, "labels"),
        classes=_classes(database),
        drift={
            "labels": _drift(database, _LABELS_OF, max_drift),
            "scores": _drift(database, _SCORES_OF.replace("{bins}", str(SCORE_BINS)), max_drift),
        },
    )


def change_rows(database: Database) -> Iterator[pa.RecordBatch]:
    """Yields the rows of the table `changes`, ordered by image."""
    names = ", ".join(CHANGE_SCHEMA.names)
    return database.batches(f"SELECT {names} FROM changes ORDER BY image_id", CHANGE_SCHEMA)


def _drift(database: Database, counting: str, max_drift: float) -> Drift | None:
    earlier, new = (
        {_bin_name(name): n for name, n in database.counts(counting.replace("{}", table)).items()}
        for table in (_EARLIER, _NEW)
    )
    return find_drift(earlier, new, max_drift)


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
