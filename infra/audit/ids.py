"""The ids of rows, as SQL macros: `record_id(shard, key)`, and `object_id(uri)` for an object that is one record.

docs/use/inputs.md ("Ids") describes the escaped form. Outputs of the first rules of reading escape nothing.
"""

import duckdb

FIRST_RULES = 1
"""Version of the rules of reading of an output whose `_job.json` names none."""

# The number of characters before the `#` at which an id is taken apart; -1 for an id without `#`.
_PLACE_OF_KEY = r"""
CREATE MACRO place_of_key(plain) AS if(
    regexp_matches(plain, '(?i)\.(tar|tar\.gz|tgz|parquet)#'),
    length(regexp_extract(plain, '(?is)^.*?\.(tar|tar\.gz|tgz|parquet)#')), strpos(plain, '#')) - 1
"""
_ESCAPED = "CREATE MACRO escaped(uri) AS 'escaped:' || replace(replace(uri, '%', '%25'), '#', '%23')"
_OBJECT_ID = "CREATE MACRO object_id(uri) AS if(contains(uri, '#'), escaped(uri), uri)"
_RECORD_ID = """
CREATE MACRO record_id(shard, key) AS CASE
    WHEN key IS NULL THEN object_id(shard)
    WHEN place_of_key(shard || '#' || key) = length(shard) THEN shard || '#' || key
    ELSE escaped(shard) || '#' || key END
"""
_FIRST = (
    "CREATE MACRO object_id(uri) AS uri",
    "CREATE MACRO record_id(shard, key) AS shard || coalesce('#' || key, '')",
)


def define_ids(database: duckdb.DuckDBPyConnection, rules: int) -> None:
    """Makes the macros of a version of the rules of reading."""
    for macro in _FIRST if rules == FIRST_RULES else (_PLACE_OF_KEY, _ESCAPED, _OBJECT_ID, _RECORD_ID):
        database.execute(macro)
