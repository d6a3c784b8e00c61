"""The contents of an output: its rows and footers as tables, its `_job.json`, its runs and their reports."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from infra.audit.findings import Findings, UnusableError
from infra.audit.ids import FIRST_RULES
from infra.audit.macs import reckon_macs
from infra.audit.net_sizes import reckon_net_size
from infra.audit.places import Object, Store
from infra.audit.tables import Inserts, first_line

logger = logging.getLogger(__name__)

# Largest number of output files, and of bytes of output files, that are copied from S3 and read at a time.
_PART_FILES = 64
_PART_BYTES = 2**30
_ROW_COLUMNS = (
    "image_id, shard, key, row, status, error_code, encoded_bytes, width, height, net_width, net_height, true_label"
)
# Columns with answers of the network -> SQL for a number that is finite if all numbers in the column's value are.
_ANSWERS = {
    "score": "score",
    "topk_scores": "list_sum(topk_scores)",
    "embedding": "list_sum(embedding)",
    **{f"stage{stage}": f"list_sum(stage{stage}.data)" for stage in (1, 2, 3, 4)},
}

# One row for each file with a footer. A value that the footer lacks is null, which differs from every counted number.
_FILES = """
CREATE TABLE files AS
SELECT file,
    text->>'shard' AS shard, text->>'hash16' AS hash16, TRY_CAST(text->>'slice' AS BIGINT) AS slice,
    TRY_CAST(text->>'end' AS BOOL) AS is_end, TRY_CAST(text->>'first_row' AS BIGINT) AS first_row,
    TRY_CAST(text->>'last_row' AS BIGINT) AS last_row, coalesce(json_array_length(text, '$.pruned'), 0) AS num_pruned,
    coalesce(TRY_CAST(text->>'emptied' AS BOOL), false) AS emptied, text->>'identity' AS identity,
    text->>'run_id' AS run_id, text->'totals' AS totals,
    CASE json_type(text, '$.own') WHEN 'OBJECT' THEN text->'own' END AS own
FROM footers
"""
# The sums of the rows of each file.
_SUMS = """
CREATE TABLE sums AS
SELECT file, count(*) AS listed, count(*) FILTER (status = 'ok') AS ok, count(*) FILTER (status = 'failed') AS failed,
    coalesce(sum(bytes), 0) AS bytes, coalesce(sum(net_width * net_height) FILTER (status = 'ok'), 0) AS pixels,
    coalesce(sum(macs) FILTER (status = 'ok'), 0) AS macs
FROM rows LEFT JOIN costs USING (net_width, net_height) GROUP BY file
"""


@dataclass(frozen=True, kw_only=True)
class Output:
    """An output without its rows.

    Attributes:
        uri: Canonical URI of the output.
        identity: Contents of `_job.json`.
        digest: Digest of the identity, which every footer must carry.
        older_digests: Digests of the identities that the output had before it was taken over to later rules.
        runs: Names of the runs' folders, sorted.
        files: Sizes in bytes of the files in `data/`, by name.
    """

    uri: str
    identity: dict[str, Any]
    digest: str
    older_digests: Sequence[str]
    runs: Sequence[str]
    files: Mapping[str, int]

    @property
    def rules(self) -> int:
        """Version of the rules of reading."""
        return self.identity["records"].get("rules", FIRST_RULES)

    def report(self, run_id: str, store: Store) -> dict[str, Any] | None:
        """Returns the `report.json` of a run; None if there is no such file.

        Raises:
            ValueError: The file is no report.
        """
        body = store.read(f"{self.uri}/runs/{run_id}/report.json")
        if body is None:
            return None
        report = json.loads(body)
        if not isinstance(report, dict) or not all(isinstance(report.get(part), dict) for part in ("run", "output")):
            raise ValueError("it lacks the parts 'run' and 'output'")
        return report


def open_output(uri: str, store: Store) -> Output:
    """Reads the `_job.json` of an output, and lists the output's runs and files; reads no rows.

    Raises:
        UnusableError: The URI holds no output of a job.
    """
    body = store.read(f"{uri}/_job.json")
    if body is None:
        raise UnusableError(f"{uri} is no output of a job: it has no _job.json")
    try:
        identity = json.loads(body)
        older = tuple(map(str, identity.pop("taken_over", ())))
        reckon_macs(identity["model"], 224, 224)
        reckon_net_size(identity, 224, 224)
        _ = [identity["records"][name] for name in ("include", "exclude", "limit")]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise UnusableError(
            f"{uri}/_job.json says nothing that can be used ({type(error).__name__}: {error})"
        ) from None
    canonical = json.dumps(identity, sort_keys=True, indent=1).encode()
    parts = [(found.uri[len(uri) + 1 :].split("/"), found.size) for found in store.list(uri)]
    return Output(
        uri=uri,
        identity=identity,
        digest=hashlib.sha256(canonical).hexdigest(),
        older_digests=older,
        runs=sorted({part[1] for part, _ in parts if part[0] == "runs" and len(part) == 3}),
        files={part[1]: size for part, size in parts if part[0] == "data" and len(part) == 2 and _is_parquet(part[1])},
    )


def _is_parquet(name: str) -> bool:
    return name.endswith(".parquet") and not name.startswith(".")


def load_rows(
    output: Output, store: Store, database: duckdb.DuckDBPyConnection, scratch: Path, findings: Findings
) -> None:
    """Fills the tables `rows`, `costs`, `files` (one row for each footer) and `sums` (the sums of each file's rows)."""
    unreadable: dict[str, str] = {}
    for part in _parts([Object(f"{output.uri}/data/{name}", size) for name, size in sorted(output.files.items())]):
        unreadable |= _load(part, store, database, scratch)
    findings.add(unreadable.values())
    known = {file for (file,) in database.execute("SELECT file FROM footers").fetchall()} | unreadable.keys()
    findings.add(f"data/{file} has no footer of an output file" for file in sorted(output.files.keys() - known))
    logger.info("audit.read files=%d", len(output.files))
    seen = database.execute("SELECT DISTINCT net_width, net_height FROM rows WHERE status = 'ok'").fetchall()
    costs = Inserts(database, "costs", ("BIGINT", "BIGINT", "BIGINT"))
    for width, height in seen:
        if width is not None and height is not None:
            costs.add(width, height, reckon_macs(output.identity["model"], height, width))
    costs.flush()
    _find_wrong_sizes(output.identity, database)
    database.execute(_FILES)
    database.execute(_SUMS)


def _find_wrong_sizes(identity: Mapping[str, Any], database: duckdb.DuckDBPyConnection) -> None:
    """Fills the table `wrong_sizes` with sizes of images that the size policy does not give."""
    wrong = Inserts(database, "wrong_sizes", ("BIGINT", "BIGINT", "BIGINT", "BIGINT", "VARCHAR"))
    seen = database.execute(
        "SELECT DISTINCT width, height, net_width, net_height FROM rows "
        "WHERE status = 'ok' AND width > 0 AND height > 0"
    ).fetchall()
    for width, height, *net in seen:
        right = reckon_net_size(identity, width, height)
        if right is None or right != tuple(net):
            wrong.add(width, height, *net, "none" if right is None else f"{right[0]}x{right[1]}")
    wrong.flush()


def _parts(files: Sequence[Object]) -> Iterator[list[Object]]:
    """Yields the files in parts of at most `_PART_FILES` files and `_PART_BYTES` bytes; a larger file is alone."""
    part: list[Object] = []
    num_bytes = 0
    for found in files:
        if part and (len(part) == _PART_FILES or num_bytes + found.size > _PART_BYTES):
            yield part
            part, num_bytes = [], 0
        part.append(found)
        num_bytes += found.size
    if part:
        yield part


def _not_finite(path: Path, database: duckdb.DuckDBPyConnection) -> str:
    """Returns SQL for the first column of an `ok` row whose numbers are not all finite; null if there is none."""
    described = database.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
    columns = {name for name, *_ in described} & _ANSWERS.keys()
    cases = [
        f"WHEN NOT coalesce(isfinite({number}), false) THEN '{name}'"
        for name, number in _ANSWERS.items()
        if name in columns
    ]
    return f"CASE WHEN status <> 'ok' THEN NULL {' '.join(cases)} END"


def _load(files: Sequence[Object], store: Store, database: duckdb.DuckDBPyConnection, scratch: Path) -> dict[str, str]:
    """Reads files into the tables; returns a sentence for each file that cannot be read, by the name of the file."""
    names = [found.uri.rpartition("/")[2] for found in files]
    paths = [scratch / f"output-{number}.parquet" for number in range(len(files))]
    placed = [list(map(str, paths)), names]
    file_of = "(SELECT unnest($1) AS path, unnest($2) AS file)"
    try:
        for found, path in zip(files, paths, strict=True):
            store.place(found.uri, path)
        database.begin()
        database.execute(
            f"INSERT INTO rows SELECT file, {_ROW_COLUMNS}, {_not_finite(paths[0], database)} "
            "FROM read_parquet($1, filename = 'path') "
            f"JOIN {file_of} USING (path)",
            placed,
        )
        database.execute(
            "INSERT INTO footers SELECT file, decode(value)::JSON FROM parquet_kv_metadata($1) "
            f"JOIN {file_of} ON path = file_name WHERE decode(key) = 'pvtv2'",
            placed,
        )
        database.commit()
    except duckdb.Error as error:
        database.rollback()
        if len(files) == 1:
            reason = first_line(error).replace(str(paths[0]), "it")
            return {names[0]: f"data/{names[0]} cannot be read: {reason}"}
    else:
        return {}
    finally:
        for path in paths:
            path.unlink(missing_ok=True)
    # One of the files is broken, or has another schema than the others: halves of the list are read by themselves.
    middle = len(files) // 2
    left = _load(files[:middle], store, database, scratch)
    return left | _load(files[middle:], store, database, scratch)
