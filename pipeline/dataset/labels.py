"""The rows of a data set: a policy decides on each prediction, and people's corrections win over the policy.

Tables of the database, in the order in which they are made:

    predictions   the network's predictions, as published (loaded)
    overrides     the corrections of people, as found (loaded)
    before        the data set before this run (loaded; empty for the first run)
    half_read     shards that are being read again, so that some of their rows are absent for now (loaded)
    classes       the label in the data set for each label of the network, with the score that it needs
    decided       the latest correction of each image
    seen          each prediction, with the row of its image in `before` and the correction of its image
    sorted        the decision on each image
    labels        the data set after this run
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.dataset.database import Database
from pipeline.dataset.policy import Policy

# Columns of a classification's rows that a data set needs.
PREDICTION_COLUMNS = (
    *("image_id", "shard", "key", "row", "source_etag", "status", "error_code", "encoded_bytes", "width", "height"),
    *("true_label", "label_id", "label", "score"),
)

LABEL_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("key", pa.string()),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("source_etag", pa.string()),
        pa.field("encoded_bytes", pa.int64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("true_label", pa.string()),
        pa.field("decision", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("label", pa.string()),
        pa.field("label_source", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("model_label", pa.string()),
        pa.field("error_code", pa.string()),
        pa.field("changed_run", pa.string(), nullable=False),
    ]
)

DECISIONS = ("accepted", "review", "dropped", "failed")

# Order of the rows: by shard, and by row inside the shard. Loose images are sorted among the shards by their URIs.
ORDER = "if(starts_with(shard, 'files:'), image_id, shard), row"

SHARD_SCHEMA = pa.schema([("shard", pa.string())])
_CLASS_SCHEMA = pa.schema([("model_label", pa.string()), ("label", pa.string()), ("min_score", pa.float32())])

# Only the latest correction of an image counts. Among corrections of the same time or without a time, the correction
# that was read last counts.
_DECIDED = """
    CREATE TABLE decided AS
    SELECT image_id, label, source_etag FROM overrides
    QUALIFY row_number() OVER (PARTITION BY image_id ORDER BY at_s DESC NULLS LAST, "order" DESC) = 1
"""

# Rows of the earlier data set are kept if they are absent only until their shard has been read to the end.
_KEPT = """
    INSERT INTO predictions BY NAME
    SELECT image_id, shard, key, row, source_etag, if(error_code IS NULL, 'ok', 'failed') AS status, error_code,
        encoded_bytes, width, height, true_label, model_label AS label, score
    FROM before ANTI JOIN predictions USING (image_id) SEMI JOIN half_read USING (shard)
"""

# A record of a tar or Parquet object has the object's ETag, which changes with any other record. So a record counts as
# the same image if its number of bytes, its size and the network's label are the same.
_SEEN = """
    CREATE TABLE seen AS
    SELECT p.*, coalesce(p.label, p.label_id::VARCHAR) AS model_label,
        coalesce(
            p.source_etag IS NOT DISTINCT FROM b.source_etag
                OR NOT starts_with(p.shard, 'files:')
                    AND (p.encoded_bytes, p.width, p.height, p.error_code, coalesce(p.label, p.label_id::VARCHAR))
                        IS NOT DISTINCT FROM (b.encoded_bytes, b.width, b.height, b.error_code, b.model_label),
            false
        ) AND b.image_id IS NOT NULL AS is_same_image,
        d.image_id IS NOT NULL AS is_decided,
        d.label AS decided_label,
        d.source_etag IS NOT NULL AND d.source_etag IS DISTINCT FROM p.source_etag
            AND NOT (is_same_image AND coalesce(b.reason = 'override' OR b.source_etag = d.source_etag, false))
            AS is_outdated
    FROM predictions p LEFT JOIN before b USING (image_id) LEFT JOIN decided d USING (image_id)
"""

# A correction stays in force after another image took the place of the corrected image, but needs a review.
_SORTED = """
    CREATE TABLE sorted AS
    SELECT p.image_id, p.shard, p.key, p.row, p.source_etag, p.encoded_bytes, p.width, p.height, p.true_label,
        CASE
            WHEN is_outdated THEN 'review'
            WHEN is_decided AND decided_label IS NULL THEN 'dropped'
            WHEN is_decided THEN 'accepted'
            WHEN p.status = 'failed' THEN 'failed'
            WHEN c.label IS NULL THEN 'dropped'
            WHEN isfinite(p.score) AND p.score >= c.min_score THEN 'accepted'
            ELSE 'review'
        END AS decision,
        CASE
            WHEN is_outdated THEN 'override.outdated'
            WHEN is_decided THEN 'override'
            WHEN p.status = 'failed' THEN p.error_code
            WHEN c.label IS NULL THEN 'class.dropped'
            WHEN isfinite(p.score) AND p.score >= c.min_score THEN NULL
            ELSE 'score.low'
        END AS reason,
        if(is_decided, decided_label, c.label) AS label,
        CASE
            WHEN is_decided AND decided_label IS NOT NULL THEN 'human'
            WHEN NOT is_decided AND c.label IS NOT NULL THEN 'model'
        END AS label_source,
        p.score, model_label, p.error_code, is_same_image
    FROM seen p LEFT JOIN classes c USING (model_label)
"""

_LABELS = """
    CREATE TABLE labels AS
    SELECT s.*, if(
        s.is_same_image
            AND (s.decision, s.label, s.label_source) IS NOT DISTINCT FROM (b.decision, b.label, b.label_source),
        b.changed_run, $run_id) AS changed_run
    FROM sorted s LEFT JOIN before b USING (image_id)
"""

_UNUSED = "SELECT count(*) FROM decided ANTI JOIN predictions USING (image_id)"


@dataclass(frozen=True, slots=True)
class Corrections:
    """Counts of the corrections of people.

    Attributes:
        rows: Number of images with a correction.
        unused: Number of corrected images that the output does not hold.
        outdated: Number of corrected images that another image has replaced since.
    """

    rows: int
    unused: int
    outdated: int


def make_labels(database: Database, policy: Policy, model_labels: Sequence[str], run_id: str) -> Corrections:
    """Makes the table `labels` from the loaded tables; returns counts of the corrections."""
    label_of = {name: policy.label_of(name) for name in model_labels}
    min_scores = [None if label is None else policy.min_score(label) for label in label_of.values()]
    columns = [list(label_of), list(label_of.values()), min_scores]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _CLASS_SCHEMA, strict=True)]
    database.load("classes", _CLASS_SCHEMA, [pa.RecordBatch.from_arrays(arrays, schema=_CLASS_SCHEMA)])
    for statement in (_DECIDED, _KEPT, _SEEN, _SORTED):
        database.run(statement)
    database.run(_LABELS, {"run_id": run_id})
    ((rows,),) = database.rows("SELECT count(*) FROM decided")
    ((unused,),) = database.rows(_UNUSED)
    ((outdated,),) = database.rows("SELECT count(*) FROM labels WHERE reason = 'override.outdated'")
    return Corrections(rows, unused, outdated)


def count_decisions(database: Database, table: str) -> dict[str, int]:
    """Returns the number of rows with each decision, and in total.

    Args:
        database: Database of the update.
        table: `labels`, the data set after the update, or `before`, the data set before it.
    """
    found = database.counts(f"SELECT decision, count(*) FROM {table} GROUP BY 1")
    return {"rows": sum(found.values()), **{decision: found.get(decision, 0) for decision in DECISIONS}}


def all_labels(database: Database, earlier: Sequence[str], expected: Sequence[str]) -> list[str]:
    """Returns the labels of all classes of the data set, in the order of the class numbers.

    Earlier classes come first, then new classes of the policy, then new classes of corrections. So a class keeps its
    number in all later runs.

    Args:
        earlier: Classes of the data set before this run.
        expected: Classes of the policy.
    """
    found = database.rows("SELECT DISTINCT label FROM labels WHERE label IS NOT NULL ORDER BY 1")
    return list(dict.fromkeys([*earlier, *expected, *(label for (label,) in found)]))
