"""Is an output equal to that of an undisturbed run? Asked of DuckDB, over the files that lie in the output."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from tests.chaos.world import State

# Pack mates move a score's last bits.
_SCORE_TOLERANCE = 1e-5
_EXACT = (
    "status", "error_code", "encoded_bytes", "width", "height", "net_width", "net_height", "true_label", "label_id",
    "label",
)  # fmt: skip
_COLUMNS = ", ".join(("id", *_EXACT, "score", "topk_scores"))


@dataclass(frozen=True)
class Compared:
    """What distinguishes an output from an undisturbed one; all are 0 where nothing does.

    Attributes:
        rows: in the output.
        lost: records without a row.
        doubled: rows beyond the first of their record, and rows of no record.
        wrong: rows that say something else.
        examples: some of the ids concerned.
    """

    rows: int
    lost: int
    doubled: int
    wrong: int
    examples: tuple[str, ...]

    @property
    def is_equal(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)


def write_reference(folder: Path, prefixes: Mapping[str, int], path: Path) -> None:
    """Keeps what an undisturbed run said of every object in every version.

    Args:
        folder: its files.
        prefixes: of the ids, and the version of the objects below each.
    """
    columns = ", ".join((*_EXACT, "score", "topk_scores"))
    parts = [
        f"SELECT substr(image_id, {len(prefix) + 1}) AS id, {version} AS version, {columns} "
        f"FROM read_parquet('{folder}/*.parquet') WHERE starts_with(image_id, '{prefix}')"
        for prefix, version in prefixes.items()
    ]
    with duckdb.connect() as connection:
        connection.sql(" UNION ALL ".join(parts)).write_parquet(str(path))


def compare(folder: Path, prefix: str, state: State, reference: Path, undecided: Collection[str] = ()) -> Compared:
    """Compares the files in a folder with what the reference has for a state of the inputs.

    Args:
        state: objects and their versions; rows of the folder that belong to none of them count as doubled.
        undecided: objects that went while a run was at them. Each of their records may have a row or none.
    """
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE state (name VARCHAR, version INTEGER)")
        connection.executemany("INSERT INTO state VALUES (?, ?)", [list(entry) for entry in state.items()])
        connection.execute(
            f"CREATE TABLE expected AS SELECT r.* FROM read_parquet('{reference}') r "
            "JOIN state s ON split_part(r.id, '#', 1) = s.name AND r.version = s.version"
        )
        connection.execute(
            f"CREATE TABLE found AS SELECT replace(image_id, '{prefix}', '') AS id, * "
            f"FROM read_parquet('{folder}/*.parquet')"
        )
        connection.execute("CREATE TABLE undecided (name VARCHAR)")
        if undecided:
            connection.executemany("INSERT INTO undecided VALUES (?)", [[name] for name in undecided])
        free = "split_part(id, '#', 1) IN (SELECT name FROM undecided)"
        # What they have counts as expected, once.
        connection.execute(f"DELETE FROM expected WHERE {free}")
        connection.execute(
            f"INSERT INTO expected ({_COLUMNS}) SELECT DISTINCT ON (id) {_COLUMNS} FROM found WHERE {free}"
        )
        lost = _ids(connection, "SELECT id FROM expected EXCEPT ALL SELECT id FROM found")
        doubled = _ids(connection, "SELECT id FROM found EXCEPT ALL SELECT id FROM expected")
        differs = " OR ".join(f"e.{name} IS DISTINCT FROM f.{name}" for name in _EXACT)
        wrong = _ids(
            connection,
            f"SELECT e.id FROM expected e JOIN found f USING (id) WHERE {differs} "
            f"OR (e.score IS NULL) != (f.score IS NULL) OR abs(e.score - f.score) > {_SCORE_TOLERANCE} "
            f"OR list_distance(e.topk_scores, f.topk_scores) > {_SCORE_TOLERANCE} * len(e.topk_scores)",
        )
        ((rows,),) = connection.sql("SELECT count(*) FROM found").fetchall()
        examples = tuple([*lost[:3], *doubled[:3], *wrong[:3]])
        return Compared(rows, len(lost), len(doubled), len(wrong), examples)


def _ids(connection: duckdb.DuckDBPyConnection, query: str) -> list[str]:
    return [row[0] for row in connection.sql(query).fetchall()]
