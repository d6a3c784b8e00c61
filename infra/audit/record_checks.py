"""Checks of the rows against the inputs: every record has one row, and every row a record."""

import duckdb

from infra.audit.findings import Findings
from infra.audit.ids import FIRST_RULES

# Records without a row of the same id, and rows without a record of the same id.
_UNMATCHED = """
CREATE TABLE lacking AS SELECT * FROM records ANTI JOIN rows USING (id);
CREATE TABLE spare AS SELECT file, id, shard, key, row, code FROM rows ANTI JOIN records USING (id);
"""
# A shard that was lost while it was read has rows with the key `@<row>` for the records that were known to exist, and
# one row without a key for all other records from its row number on.
_LOST = """
CREATE TABLE lost AS
SELECT shard, row, key, code FROM spare JOIN (SELECT uri AS shard FROM shards) USING (shard)
WHERE code LIKE 'source.%' AND (key IS NULL OR key = '@' || row);
DELETE FROM spare USING lost WHERE spare.shard = lost.shard AND spare.row = lost.row
    AND spare.key IS NOT DISTINCT FROM lost.key;
CREATE TABLE stood_for AS
SELECT l.id, l.shard, lost.code FROM lacking l JOIN lost ON l.shard = lost.shard
    AND (l.row = lost.row OR (lost.key IS NULL AND l.row > lost.row));
DELETE FROM lacking USING stood_for WHERE lacking.id = stood_for.id;
"""
_STOOD_FOR = """
SELECT format('{}: {:,} records have no row of their own; rows {} stand for them', shard, count(DISTINCT id),
    string_agg(DISTINCT code, ', ')) AS sentence FROM stood_for GROUP BY shard
"""
_LACKING_SHARDS = """
SELECT format('{}: {:,} of its {:,} records have no row, {} the first of them', shard, count(*), any_value(num_records),
    arg_min(id, row)) AS sentence FROM lacking JOIN shards ON shards.uri = lacking.shard GROUP BY shard
"""
_LACKING_FILES = "SELECT format('{} has no row', id) AS sentence FROM lacking WHERE shard IS NULL"
# Shards that the audit cannot read to their end: the records behind the break are not counted.
_READ_FURTHER = """
SELECT format('{} breaks off after {:,} records ({}); {} rows for what is behind them are taken as they are', uri,
    num_records, broken, count(spare.id)) AS sentence
FROM shards LEFT JOIN spare ON spare.shard = shards.uri WHERE broken IS NOT NULL GROUP BY uri, num_records, broken
"""
_UNSAID = """
SELECT format('{} breaks off ({}), but no row says so', uri, broken) AS sentence
FROM shards ANTI JOIN lost ON lost.shard = shards.uri WHERE broken IS NOT NULL AND is_read
"""
_WRONG_IDS = """
SELECT format('data/{}: row {} ({}) is no record of its shard, which is still there', file, row, id) AS sentence
FROM spare JOIN shards ON spare.shard = shards.uri WHERE broken IS NULL
"""
_GONE = """
CREATE TABLE gone AS SELECT spare.id, spare.shard FROM spare ANTI JOIN shards ON spare.shard = shards.uri;
"""
_GONE_ROWS = "SELECT format('{} has a row, but is not among the inputs', id) AS sentence FROM gone"
_PLACES = """
SELECT format('data/{}: {} is row {}, but record {} of its shard', file, id, rows.row, records.row) AS sentence
FROM rows JOIN records USING (id) WHERE records.shard IS NOT NULL AND records.row <> rows.row
"""
_BYTES = """
SELECT format('{}: the row says {:,} encoded bytes, the input has {:,}; did it change since?', id, rows.bytes,
    records.bytes) AS sentence
FROM rows JOIN records USING (id) WHERE rows.bytes <> records.bytes
"""
_NO_ROW = """
SELECT format('{} cannot be read ({}), but no row says so', uri, broken) AS sentence
FROM shards ANTI JOIN rows ON rows.shard = shards.uri WHERE broken IS NOT NULL AND NOT is_read
"""
# A record that could not be read has no label. Arrow writes durations into Parquet as whole numbers, and a row has the
# duration's text.
_LABELS = r"""
SELECT format('data/{}: row {} ({}) has the label {}, but its source says {}; did it change since?', file, rows.row, id,
    coalesce(format('"{}"', rows.label), 'null'), coalesce(format('"{}"', records.label), 'null')) AS sentence
FROM rows JOIN records USING (id)
WHERE is_known AND rows.label IS DISTINCT FROM records.label AND coalesce(code, '') NOT LIKE 'source.%'
    AND NOT coalesce(regexp_full_match(records.label, '-?\d+')
        AND regexp_full_match(rows.label, '(-?\d+ days?,? )?[+]?\d+:\d\d:\d\d(\.\d+)?'), false)
"""
_REFUSED = """
SELECT format('data/{}: row {} ({}) is ok, but its source is one that no job decodes: {}', file, rows.row, id, refused)
    AS sentence
FROM rows JOIN records USING (id) WHERE status = 'ok' AND refused IS NOT NULL
"""
_UNSEEN = """
SELECT format('{} Parquet files: not all labels and first bytes of images were compared, {} the first ({})', count(*),
    min(uri), arg_min(unseen, uri)) AS sentence
FROM shards WHERE unseen IS NOT NULL HAVING count(*) > 0
"""
_UNTOLD = """
SELECT format('{:,} labels in tars were not compared, that of {} the first', count(*), min(id)) AS sentence
FROM records JOIN shards ON shards.uri = records.shard WHERE NOT is_known AND is_read HAVING count(*) > 0
"""


def check_records(
    database: duckdb.DuckDBPyConnection, findings: Findings, *, is_finished: bool, is_strict: bool, limit: int | None,
    rules: int,
) -> dict[str, int]:  # fmt: skip
    """Compares the records of the inputs with the rows of the output; returns the counts for the printed table.

    Args:
        is_finished: True if the run had time to give every record its row; otherwise a missing row is only a note.
        is_strict: True makes rows without a record a disagreement.
        limit: `--limit` of the output, under which most records may have no row.
        rules: Version of the rules of reading. Rows `ok` of formats that are refused now are a note under the first
            rules, and a disagreement under later ones.
    """
    database.execute(_UNMATCHED)
    database.execute(_LOST)
    findings.ask(database, _STOOD_FOR, is_problem=False)
    findings.ask(database, _READ_FURTHER, is_problem=False)
    findings.ask(database, _UNSAID, is_problem=is_finished and limit is None)
    findings.ask(database, _WRONG_IDS)
    database.execute(_GONE)
    findings.ask(database, _GONE_ROWS, is_problem=is_strict)
    findings.ask(database, _PLACES)
    findings.ask(database, _BYTES, is_problem=is_finished)
    if rules != FIRST_RULES and limit is None:
        findings.ask(database, _NO_ROW, is_problem=is_finished)
    findings.ask(database, _LABELS)
    findings.ask(database, _REFUSED, is_problem=rules != FIRST_RULES)
    findings.ask(database, _UNSEEN, is_problem=False)
    findings.ask(database, _UNTOLD, is_problem=False)
    counts = {
        "records in the inputs": _count(database, "records"),
        "of them without a row": _count(database, "lacking"),
        "rows without input": _count(database, "gone"),
    }
    if limit is not None:
        rows = _count(database, "rows")
        wanted = min(limit, counts["records in the inputs"])
        findings.add([f"{rows:,} rows under a limit of {limit:,}"], is_problem=rows < wanted and is_finished)
    else:
        findings.ask(database, _LACKING_SHARDS, is_problem=is_finished)
        findings.ask(database, _LACKING_FILES, is_problem=is_finished)
    return counts


def _count(database: duckdb.DuckDBPyConnection, table: str) -> int:
    counted = database.execute(f"SELECT count(*) FROM {table}").fetchone()
    return 0 if counted is None else counted[0]
