"""The rows of a Parquet file, counted by DuckDB from the footer alone."""

from pathlib import Path

import duckdb

from infra.audit.places import Object, Store
from infra.audit.tables import first_line


def count_rows(
    found: Object, store: Store, database: duckdb.DuckDBPyConnection, scratch: Path
) -> tuple[int, str | None]:
    """Returns (number of rows in a Parquet file's footer, None), or (0, the reason why the footer cannot be read)."""
    path = scratch / "input.parquet"
    store.place_footer(found, path)
    try:
        counted = database.execute("SELECT num_rows FROM parquet_file_metadata(?)", [str(path)]).fetchone()
    except duckdb.Error as error:
        return 0, first_line(error).replace(f"'{path}'", "it")
    finally:
        path.unlink()
    assert counted is not None
    return counted[0], None
