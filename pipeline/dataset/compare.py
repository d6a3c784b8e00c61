"""The comparison of two outputs, row by row: the same images under two models or two settings."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipeline.dataset.database import Database
from pipeline.dataset.drift import find_drift
from pipeline.dataset.not_finite import fail_not_finite
from pipeline.evaluation.predictions import Predictions

DIFFERENCE_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("difference", pa.string(), nullable=False),
        pa.field("status_a", pa.string()),
        pa.field("status_b", pa.string()),
        pa.field("label_a", pa.string()),
        pa.field("label_b", pa.string()),
        pa.field("score_a", pa.float32()),
        pa.field("score_b", pa.float32()),
    ]
)

# `other_source`: the outputs hold different versions of the image, which says nothing about the models.
# `other_status`: the image failed in one of the outputs.
KINDS = ("only_a", "only_b", "other_source", "other_status", "flipped")

_COLUMNS = ("image_id", "source_etag", "status", "error_code", "label_id", "label", "score")
_TYPES = {"label_id": pa.int32(), "score": pa.float32()}
_MOST_FLIPS = 20

_PAIRS = """
    CREATE TABLE pairs AS
    SELECT coalesce(a.image_id, b.image_id) AS image_id,
        CASE
            WHEN b.image_id IS NULL THEN 'only_a'
            WHEN a.image_id IS NULL THEN 'only_b'
            WHEN a.source_etag IS DISTINCT FROM b.source_etag THEN 'other_source'
            WHEN a.status <> b.status THEN 'other_status'
            WHEN a.name IS DISTINCT FROM b.name THEN 'flipped'
        END AS difference,
        a.status AS status_a, b.status AS status_b, a.name AS label_a, b.name AS label_b,
        a.score AS score_a, b.score AS score_b
    FROM (SELECT *, coalesce(label, label_id::VARCHAR) AS name FROM rows_a) a
    FULL JOIN (SELECT *, coalesce(label, label_id::VARCHAR) AS name FROM rows_b) b USING (image_id)
"""
# Images that have a label in both outputs, and the same version of the source in both outputs.
_LABELLED = (
    "FROM pairs WHERE label_a IS NOT NULL AND label_b IS NOT NULL AND coalesce(difference, 'flipped') = 'flipped'"
)
_SCORES = f"SELECT count(*), avg(score_a), avg(score_b), avg(abs(score_a - score_b)) {_LABELLED}"
_FLIPS = f"""
    SELECT label_a, label_b, count(*) AS images {_LABELLED} AND label_a <> label_b
    GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT {_MOST_FLIPS}
"""


def compare(database: Database, a: Predictions, b: Predictions) -> dict[str, Any]:
    """Returns counts of the images on which two outputs agree or differ; `differences` yields the rows that differ.

    Raises:
        InputError: A file of an output cannot be read.
    """
    not_finite = 0
    for name, predictions in (("rows_a", a), ("rows_b", b)):
        tables = predictions.tables(_COLUMNS)
        schema = pa.schema([(column, _TYPES.get(column, pa.string())) for column in _COLUMNS])
        batches = (batch for table in tables for batch in table.replace_schema_metadata(None).cast(schema).to_batches())
        database.load_images(name, schema, batches)
        not_finite += fail_not_finite(database, name)
    database.run(_PAIRS)
    kinds = database.counts("SELECT difference, count(*) FROM pairs WHERE difference IS NOT NULL GROUP BY 1")
    ((labelled, mean_a, mean_b, moved),) = database.rows(_SCORES)
    counts = {kind: kinds.get(kind, 0) for kind in KINDS}
    ((images,),) = database.rows("SELECT count(*) FROM pairs")
    labels_a, labels_b = (
        database.counts(f"SELECT label_{side}, count(*) {_LABELLED} GROUP BY 1") for side in ("a", "b")
    )
    drift = find_drift(labels_a, labels_b, 0.0)
    return {
        "images": images,
        **counts,
        "not_finite": not_finite,
        "labelled_by_both": labelled,
        "agreement": round(1 - counts["flipped"] / labelled, 6) if labelled else None,
        "labels_psi": None if drift is None else round(drift.psi, 4),
        "mean_score_a": _rounded(mean_a),
        "mean_score_b": _rounded(mean_b),
        "mean_score_difference": _rounded(moved),
        "flips": [{"label_a": x, "label_b": y, "images": n} for x, y, n in database.rows(_FLIPS)],
        "classes": [
            {"label": label, "a": labels_a.get(label, 0), "b": labels_b.get(label, 0)}
            for label in sorted({*labels_a, *labels_b})
        ],
    }


def differences(database: Database) -> Iterator[pa.RecordBatch]:
    """Yields the rows on which the outputs of the last `compare` differ, ordered by image."""
    names = ", ".join(DIFFERENCE_SCHEMA.names)
    query = f"SELECT {names} FROM pairs WHERE difference IS NOT NULL ORDER BY image_id"
    return database.batches(query, DIFFERENCE_SCHEMA)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
