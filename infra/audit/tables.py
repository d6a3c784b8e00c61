"""The database of an audit: DuckDB, which spills to a scratch folder, so that ids never fill Python's memory."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from infra.audit.findings import UnusableError

_BATCH_ROWS = 10_000

_TABLES = """
CREATE TABLE shards (uri VARCHAR, is_read BOOL, num_records BIGINT, broken VARCHAR, unseen VARCHAR);
CREATE TABLE records (
    id VARCHAR, shard VARCHAR, row BIGINT, bytes BIGINT, label VARCHAR, is_known BOOL, refused VARCHAR
);
CREATE TABLE labels (shard VARCHAR, row BIGINT, label VARCHAR);
CREATE TABLE refusals (shard VARCHAR, row BIGINT, refused VARCHAR);
CREATE TABLE footers (file VARCHAR, text JSON);
CREATE TABLE rows (
    file VARCHAR, id VARCHAR, shard VARCHAR, key VARCHAR, row BIGINT, status VARCHAR, code VARCHAR,
    bytes BIGINT, width BIGINT, height BIGINT, net_width BIGINT, net_height BIGINT, label VARCHAR, not_finite VARCHAR
);
CREATE TABLE wrong_sizes (
    width BIGINT, height BIGINT, net_width BIGINT, net_height BIGINT, right_size VARCHAR
);
CREATE TABLE costs (net_width BIGINT, net_height BIGINT, macs BIGINT);
"""


@contextmanager
def opened_tables(memory_limit: str, temp_dir: str | None) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """Yields the database with its empty tables, and the scratch folder that contains the database.

    Raises:
        UnusableError: The memory limit is invalid, or the folder cannot be used.
    """
    try:
        scratch = TemporaryDirectory(prefix="audit-", dir=temp_dir)
    except OSError as error:
        raise UnusableError(f"no scratch folder can be made: {error}") from None
    with scratch as folder:
        config: dict[str, Any] = {
            "memory_limit": memory_limit,
            "temp_directory": f"{folder}/spill",
            "preserve_insertion_order": False,
        }
        try:
            database = duckdb.connect(f"{folder}/audit.duckdb", config=config)
        except duckdb.Error as error:
            raise UnusableError(f"the database cannot be made: {first_line(error)}") from None
        with database:
            database.execute(_TABLES)
            yield database, Path(folder)


class Inserts:
    """Inserts rows into a table, some thousands at a time; call `flush` after the last row.

    Args:
        types: Types of the values of one row, in the order of `add`.
        select: SQL for the columns of the table; the values are `v0`, `v1` and so on. Default: the values.
    """

    def __init__(
        self, database: duckdb.DuckDBPyConnection, table: str, types: Sequence[str], select: str = "*"
    ) -> None:
        self._database = database
        places = ", ".join(f"unnest(?::{kind}[]) AS v{number}" for number, kind in enumerate(types))
        self._statement = f"INSERT INTO {table} SELECT {select} FROM (SELECT {places})"
        self._columns: list[list[Any]] = [[] for _ in types]

    def add(self, *values: Any) -> None:
        """Adds one row."""
        for column, value in zip(self._columns, values, strict=True):
            column.append(value)
        if len(self._columns[0]) >= _BATCH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Writes the rows that are not in the table yet."""
        if self._columns[0]:
            self._database.execute(self._statement, self._columns)
        self._columns = [[] for _ in self._columns]


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text, at most 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
