"""The rows of a data set: predictions sorted by a policy, corrected by people, set against the rows before.

Tables in the database, in the order in which they come about:

    predictions   what the network said, as published (loaded)
    overrides     what people said, as it was found (loaded)
    before        the data set as it was (loaded; empty at first)
    half_read     shards that are being read again, so that some of their rows are absent for now (loaded)
    classes       the network's label -> the data set's, with the score that it needs
    decided       the last word of people on each image
    seen          predictions beside what was before and what people decided
    sorted        what becomes of each
    labels        the data set as it is now
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.dataset.database import Database
from pipeline.dataset.policy import Policy

# Columns of a classification's rows that a data set is made of.
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

# Images of one shard together, in its order; loose images in the order of their URIs, among the shards.
ORDER = "if(starts_with(shard, 'files:'), image_id, shard), row"

SHARD_SCHEMA = pa.schema([("shard", pa.string())])
_CLASS_SCHEMA = pa.schema([("model_label", pa.string()), ("label", pa.string()), ("min_score", pa.float32())])

# One row an image: the latest; of those without a time, or of one time, the last that was read.
_DECIDED = """
    CREATE TABLE decided AS
    SELECT image_id, label, source_etag FROM overrides
    QUALIFY row_number() OVER (PARTITION BY image_id ORDER BY at_s DESC NULLS LAST, "order" DESC) = 1
"""

# What is absent only until its shard is read to the end is not gone.
_KEPT = """
    INSERT INTO predictions BY NAME
    SELECT image_id, shard, key, row, source_etag, if(error_code IS NULL, 'ok', 'failed') AS status, error_code,
        encoded_bytes, width, height, true_label, model_label AS label, score
    FROM before ANTI JOIN predictions USING (image_id) SEMI JOIN half_read USING (shard)
"""

# A record of a tar or Parquet object has that object's ETag, which changes when another record does: there an image is
# the same if its bytes are as many, and the network sees the same in it.
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

# A correction of an image that was exchanged since stands, but somebody should look again.
_SORTED = """
    CREATE TABLE sorted AS
    SELECT p.image_id, p.shard, p.key, p.row, p.source_etag, p.encoded_bytes, p.width, p.height, p.true_label,
        CASE
            WHEN is_outdated THEN 'review'
            WHEN is_decided AND decided_label IS NULL THEN 'dropped'
            WHEN is_decided THEN 'accepted'
            WHEN p.status = 'failed' THEN 'failed'
            WHEN c.label IS NULL THEN 'dropped'
            WHEN p.score >= c.min_score THEN 'accepted'
            ELSE 'review'
        END AS decision,
        CASE
            WHEN is_outdated THEN 'override.outdated'
            WHEN is_decided THEN 'override'
            WHEN p.status = 'failed' THEN p.error_code
            WHEN c.label IS NULL THEN 'class.dropped'
            WHEN p.score >= c.min_score THEN NULL
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
    """What became of what people said.

    Attributes:
        rows: images that somebody decided on.
        unused: those of them that the output does not hold.
        outdated: those whose image is another one since.
    """

    rows: int
    unused: int
    outdated: int


def make_labels(database: Database, policy: Policy, model_labels: Sequence[str], run_id: str) -> Corrections:
    """Makes the table `labels` of those that were loaded; returns what became of people's corrections."""
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
    """How many rows of `labels` or `before` there are of each decision, and together."""
    found = database.counts(f"SELECT decision, count(*) FROM {table} GROUP BY 1")
    return {"rows": sum(found.values()), **{decision: found.get(decision, 0) for decision in DECISIONS}}


def all_labels(database: Database, earlier: Sequence[str], expected: Sequence[str]) -> list[str]:
    """The data set's classes: those it had, in their order, then the policy's, then those that people brought.

    A class keeps its number, whatever comes later.
    """
    found = database.rows("SELECT DISTINCT label FROM labels WHERE label IS NOT NULL ORDER BY 1")
    return list(dict.fromkeys([*earlier, *expected, *(label for (label,) in found)]))
