"""Checks of the output without the inputs: each file against its footer, the slices of each shard, and the index."""

from pathlib import Path

import duckdb

from infra.audit.findings import Findings
from infra.audit.ids import FIRST_RULES
from infra.audit.places import Store
from infra.audit.published import Output
from infra.audit.tables import first_line

_NUMBERS = """
SELECT format('data/{}: {:,} {} in its rows, {} in its footer', file, counted, what,
    coalesce(format('{:,}', said), 'none')) AS sentence
FROM (
    SELECT file, unnest(['records', 'ok', 'failed', 'encoded bytes', 'pixels', 'MACs']) AS what,
        unnest([TRY_CAST(totals->>name AS HUGEINT) FOR name IN ['listed', 'ok', 'failed', 'bytes', 'pixels', 'macs']])
            AS said,
        unnest([coalesce(number, 0) FOR number IN [listed::HUGEINT, ok, failed, bytes, pixels, macs]]) AS counted
    FROM files LEFT JOIN sums USING (file)
) WHERE said IS DISTINCT FROM counted
"""
_CODES = """
SELECT format('data/{}: {:,} rows failed with {}, {:,} by its footer', file, coalesce(counted, 0), code,
    coalesce(said, 0)) AS sentence
FROM (
    SELECT file, code, TRY_CAST(totals->'failed_by_code'->>code AS BIGINT) AS said
    FROM (SELECT file, totals, unnest(json_keys(totals, '$.failed_by_code')) AS code FROM files)
) FULL JOIN (SELECT file, code, count(*) AS counted FROM rows WHERE code IS NOT NULL GROUP BY ALL) USING (file, code)
WHERE coalesce(said, 0) <> coalesce(counted, 0)
"""
_SPANS = """
SELECT format('data/{}: {:,} rows, but by its footer it spans rows {} to {}, of which {} were taken out', file,
    coalesce(listed, 0), first_row, last_row, num_pruned) AS sentence
FROM files LEFT JOIN sums USING (file) WHERE last_row - first_row + 1 - num_pruned <> coalesce(listed, 0)
"""
_ROWS = """
SELECT format('data/{}: row {} ({}) is not what its footer and its own columns demand', file, row, id) AS sentence
FROM rows JOIN (SELECT file, shard AS shard_said, first_row, last_row, identity FROM files) USING (file)
WHERE row NOT BETWEEN first_row AND last_row OR shard IS DISTINCT FROM shard_said
    OR status NOT IN ('ok', 'failed') OR (status = 'ok') <> (code IS NULL)
    OR (status = 'ok' AND (net_width IS NULL OR net_height IS NULL))
    OR (shard NOT LIKE 'files:%' AND id <> record_id(shard, key) AND identity = $1)
"""
_NAMES = """
SELECT format('data/{}: by its footer it holds slice {} of {}, by its name another', file, slice, shard) AS sentence
FROM files WHERE NOT coalesce(ends_with(file, '-' || hash16 || '-' || lpad(slice::VARCHAR,
    greatest(5, length(slice::VARCHAR))::INT, '0') || if(is_end, '-end', '') || '.parquet'), false)
"""
_IDENTITIES = """
SELECT format('data/{} was written for another _job.json than is there', file) AS sentence
FROM files WHERE identity IS DISTINCT FROM $1 AND NOT list_contains($2::VARCHAR[], coalesce(identity, ''))
"""
_OLDER = """
SELECT format('{} files were written under older rules of reading, data/{} the first', count(*), min(file)) AS sentence
FROM files WHERE identity <> $1 AND list_contains($2::VARCHAR[], identity) AND NOT emptied HAVING count(*) > 0
"""
_NOT_FINITE = """
SELECT format('data/{}: row {} ({}) is ok, but its {} has numbers that are not finite', file, row, id, not_finite)
    AS sentence
FROM rows WHERE not_finite IS NOT NULL
"""
_WRONG_SIZES = """
SELECT format('data/{}: row {} ({}) of {}x{} px was seen at {}x{} px, by _job.json at {}', file, row, id, width, height,
    net_width, net_height, right_size) AS sentence
FROM rows JOIN wrong_sizes USING (width, height, net_width, net_height) WHERE status = 'ok'
"""
_DOUBLED = "SELECT format('{} has {} rows', id, count(*)) AS sentence FROM rows GROUP BY id HAVING count(*) > 1"

# Each slice with the number and the last row of the slice before it.
_CHAINS = """
(
    SELECT *, lag(slice) OVER slices AS before, lag(last_row) OVER slices AS row_before,
        lead(slice) OVER slices IS NULL AS is_last
    FROM files WHERE NOT emptied WINDOW slices AS (PARTITION BY shard ORDER BY slice, is_end)
)
"""
_WRONG_CHAINS = f"""
SELECT CASE
    WHEN slice = before THEN format('{{}}: two files hold slice {{}}', shard, slice)
    WHEN slice = coalesce(before, -1) + 1 AND first_row <> coalesce(row_before, -1) + 1 THEN
        format('{{}}: slice {{}} begins at row {{}}, expected {{}}', shard, slice, first_row,
            coalesce(row_before, -1) + 1)
    WHEN is_end AND NOT is_last THEN format('{{}}: others follow slice {{}}, which is marked as the last', shard, slice)
END AS sentence FROM {_CHAINS} WHERE sentence IS NOT NULL
"""
_CUT_CHAINS = f"""
SELECT CASE
    WHEN slice > coalesce(before, -1) + 1 THEN
        format('{{}}: no file holds slice {{}}, though slice {{}} is there', shard, coalesce(before, -1) + 1, slice)
    WHEN is_last AND NOT is_end THEN format('{{}}: no file holds what follows slice {{}}', shard, slice)
END AS sentence FROM {_CHAINS} WHERE sentence IS NOT NULL
"""
_INDEX = """
SELECT CASE
    WHEN f.file IS NULL THEN format('_index.parquet names {}, which is not in data/', i.file)
    WHEN i.file IS NULL THEN format('_index.parquet lacks data/{}', f.file)
    ELSE format('_index.parquet says something else of data/{} than its footer', f.file) END AS sentence
FROM files f FULL JOIN read_parquet(?) i ON f.file = i.file
WHERE (f.shard, f.slice, f.is_end, f.first_row, f.last_row, f.emptied, f.run_id, f.identity,
        TRY_CAST(f.totals->>'listed' AS BIGINT), TRY_CAST(f.totals->>'ok' AS BIGINT),
        TRY_CAST(f.totals->>'failed' AS BIGINT))
    IS DISTINCT FROM (i.shard, i.slice, i."last", i.first_row, i.last_row, i.emptied, i.run_id, i.identity, i."rows",
        i.ok, i.failed)
"""


def check_files(output: Output, database: duckdb.DuckDBPyConnection, findings: Findings) -> None:
    """Compares each file with its footer, and each footer with the output's `_job.json` and the file's name."""
    for query in (_NAMES, _NUMBERS, _CODES, _SPANS, _WRONG_SIZES, _DOUBLED):
        findings.ask(database, query)
    findings.ask(database, _ROWS, [output.digest])
    findings.ask(database, _IDENTITIES, [output.digest, list(output.older_digests)])
    findings.ask(database, _OLDER, [output.digest, list(output.older_digests)], is_problem=False)
    # Outputs of the first rules of reading were written before the job refused such answers.
    findings.ask(database, _NOT_FINITE, is_problem=output.rules != FIRST_RULES)


def check_slices(database: duckdb.DuckDBPyConnection, findings: Findings, *, is_finished: bool) -> None:
    """Checks that each shard has one slice of each number, and that slices follow each other without gaps.

    Args:
        is_finished: True if the run had time to publish all slices; otherwise a missing slice is only a note.
    """
    findings.ask(database, _WRONG_CHAINS)
    findings.ask(database, _CUT_CHAINS, is_problem=is_finished)


def check_index(
    output: Output, store: Store, database: duckdb.DuckDBPyConnection, scratch: Path, findings: Findings, *,
    is_finished: bool,
) -> None:  # fmt: skip
    """Compares `_index.parquet` with the footers of the files.

    Args:
        is_finished: True if the run had time to update the index, which is a cache; otherwise a difference is only a
            note.
    """
    uri, path = f"{output.uri}/_index.parquet", scratch / "index.parquet"
    if not any(found.uri == uri for found in store.list(uri)):
        findings.add(["there is no _index.parquet"], is_problem=is_finished)
        return
    store.place(uri, path)
    try:
        findings.ask(database, _INDEX, [str(path)], is_problem=is_finished)
    except duckdb.Error as error:
        findings.add([f"_index.parquet cannot be read: {first_line(error)}"])
    finally:
        path.unlink()
