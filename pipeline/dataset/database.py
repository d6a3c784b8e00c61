"""A database on the local disk for one update, which joins and sorts tables that are larger than memory.

The database is DuckDB, because a full join of two labelled data sets does not fit into memory. Rows come and go
as Arrow batches through `pipeline.store.store_path`; DuckDB opens no file of the user and loads no extension.
"""

import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

logger = logging.getLogger(__name__)

_MEMORY = "2GB"
_BATCH_ROWS = 16_384
_ROWS = "arriving_rows"


@contextmanager
def open_database() -> Iterator["Database"]:
    """Opens a new database, and deletes it at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="pvtv2-dataset-", ignore_cleanup_errors=True) as folder:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": _MEMORY,
            "temp_directory": folder,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        connection = duckdb.connect(str(Path(folder, "tables.duckdb")), config=settings)
        try:
            yield Database(connection)
        finally:
            connection.close()


class Database:
    """The tables of one update. The code contains all SQL; data of users is only passed as values."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def load(self, name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        """Makes a table from the rows of some batches, without holding all rows in memory.

        An error that `batches` raises is raised unchanged, although DuckDB would change the type of the error.
        """
        raised: list[BaseException] = []

        def watched() -> Iterator[pa.RecordBatch]:
            try:
                yield from batches
            except BaseException as error:
                raised.append(error)
                raise

        reader = pa.RecordBatchReader.from_batches(schema, watched())
        self._connection.register(_ROWS, reader)
        try:
            self._connection.execute(f"CREATE TABLE {name} AS FROM {_ROWS}")
        except Exception:
            if raised:
                raise raised[0] from None
            raise
        finally:
            self._connection.unregister(_ROWS)

    def load_images(self, name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        """Makes a table with one row for each image; if an image has several rows, the last row is kept."""
        self.load(name, schema, batches)
        ((doubled,),) = self.rows(f"SELECT count(*) - count(DISTINCT image_id) FROM {name}")
        if doubled:
            logger.warning(
                "rows.doubled table=%s rows=%d: an image has several rows; one of them counts", name, doubled
            )
            self.run(
                f"CREATE OR REPLACE TABLE {name} AS FROM {name} "
                f"QUALIFY row_number() OVER (PARTITION BY image_id ORDER BY rowid DESC) = 1"
            )

    def run(self, statement: str, values: Any = None) -> None:
        """Executes one statement, with values for its parameters."""
        self._connection.execute(statement, values)

    def rows(self, query: str, values: Any = None) -> list[tuple[Any, ...]]:
        """Returns all rows of a small result."""
        return self._connection.execute(query, values).fetchall()

    def counts(self, query: str, values: Any = None) -> dict[Any, int]:
        """Returns a result of two columns, a value and its count, as a mapping from the value to the count."""
        return {name: int(count) for name, count in self.rows(query, values)}

    def batches(self, query: str, schema: pa.Schema, values: Any = None) -> Iterator[pa.RecordBatch]:
        """Yields the rows of a large result, batch by batch."""
        reader: pa.RecordBatchReader = self._connection.sql(query, params=values).to_arrow_reader(_BATCH_ROWS)
        for batch in reader:
            yield batch.cast(schema)
