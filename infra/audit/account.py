"""The sums of the rows, for one run and for the whole output, compared with the sums in `report.json`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb

from infra.audit.findings import Findings

# The name of a sum in the printed table -> its name in reports and footers.
NUMBERS = {
    "files": "files",
    "records listed": "listed",
    "ok": "ok",
    "failed": "failed",
    "encoded bytes": "bytes",
    "pixels": "pixels",
    "MACs": "macs",
}
_SUMMED = ("listed", "ok", "failed", "bytes", "pixels", "macs")
_SUMS = ", ".join(f"coalesce(sum({name}), 0)" for name in _SUMMED)
_OWN_SUMS = ", ".join(f"coalesce(sum(TRY_CAST(own->>'{name}' AS HUGEINT)), 0)" for name in _SUMMED)
_WRITTEN = "NOT emptied AND run_id = ? AND own IS NULL"
# No row says that a later run replaced it. The footer of the row's file gives the later run's own sums as `own`.
_EXCHANGED = "FROM files WHERE NOT emptied AND run_id = ? AND own IS NOT NULL"


@dataclass(frozen=True, kw_only=True)
class Sums:
    """The sums over the rows of some files.

    Attributes:
        numbers: Counts and amounts of work, by the names that reports and footers use.
        codes: Number of failed records by error code.
    """

    numbers: Mapping[str, int]
    codes: Mapping[str, int] = field(default_factory=dict)

    def lines(self) -> dict[str, int]:
        """Returns the numbers by their names in the printed table, with each error code below `failed`."""
        found = {}
        for name, key in NUMBERS.items():
            found[name] = self.numbers.get(key, 0)
            if key == "failed":
                found |= {f"  {code}": count for code, count in sorted(self.codes.items())}
        return found


def whole_sums(database: duckdb.DuckDBPyConnection) -> Sums:
    """Returns the sums of all rows of the output."""
    counted = _row(database, f"SELECT {_SUMS} FROM sums")
    (num_files,) = _row(database, "SELECT count(*) FROM files WHERE NOT emptied")
    codes = database.execute("SELECT code, count(*) FROM rows WHERE code IS NOT NULL GROUP BY code").fetchall()
    return Sums(numbers=_named(counted, num_files), codes=dict(codes))


def run_sums(run_id: str, database: duckdb.DuckDBPyConnection, findings: Findings) -> Sums:
    """Returns the sums of a run, from the rows of its own files and from footers of files of earlier runs.

    A run may replace rows in files of earlier runs. Such rows do not name the run, so that the run's sums in the
    footers of these files are taken without a count.
    """
    query = f"SELECT {_SUMS}, count(*) FROM files LEFT JOIN sums USING (file) WHERE {_WRITTEN}"
    *counted, num_files = _row(database, query, run_id)
    numbers = Counter(_named(counted, num_files))
    query = (
        f"SELECT code, count(*) FROM rows JOIN files USING (file) WHERE {_WRITTEN} AND code IS NOT NULL GROUP BY code"
    )
    codes = Counter(dict(database.execute(query, [run_id]).fetchall()))
    *exchanged, num_exchanged = _row(database, f"SELECT {_OWN_SUMS}, count(*) {_EXCHANGED}", run_id)
    if num_exchanged:
        numbers.update(_named(exchanged, num_exchanged))
        query = (
            "SELECT code, sum(TRY_CAST(own->'failed_by_code'->>code AS BIGINT))::BIGINT FROM "
            f"(SELECT own, unnest(json_keys(own, '$.failed_by_code')) AS code {_EXCHANGED}) GROUP BY code"
        )
        codes.update(dict(database.execute(query, [run_id]).fetchall()))
        what = "files had rows exchanged by this run; what it did in them is their footers' word"
        findings.add([f"{num_exchanged:,} {what}"], is_problem=False)
    return Sums(numbers=dict(numbers), codes=dict(codes))


def _row(database: duckdb.DuckDBPyConnection, query: str, *parameters: str) -> tuple[Any, ...]:
    return database.execute(query, list(parameters)).fetchone() or ()


def _named(counted: Sequence[Any], num_files: int) -> dict[str, int]:
    return {**dict(zip(_SUMMED, map(int, counted), strict=True)), "files": num_files}


def reported_sums(part: Mapping[str, Any]) -> Sums:
    """Returns the sums in a part of `report.json`; a sum that is missing or no number is -1."""
    codes = part.get("failed_by_code")
    return Sums(
        numbers={key: _number(part.get(key)) for key in NUMBERS.values()},
        codes={code: _number(count) for code, count in codes.items()} if isinstance(codes, dict) else {"(none)": -1},
    )


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the printed table.

    Attributes:
        what: Name of the number.
        audited: The number that the audit counted.
        reported: The number in the report; None if the report has no such number.
        may_be_less: True if later runs may have replaced rows that the report counted.
    """

    what: str
    audited: int
    reported: int | None
    may_be_less: bool = False

    @property
    def verdict(self) -> str:
        """One or two words about the comparison; empty if the report has no such number."""
        if self.reported is None:
            return ""
        if self.reported == self.audited:
            return "equal"
        return "less" if self.may_be_less and self.audited < self.reported else "NOT EQUAL"


def compared(audited: Sums, reported: Sums | None, *, may_be_less: bool = False) -> list[Line]:
    """Returns one line for each number, with the audited and the reported value.

    An error code that only one side has counts as 0 on the other side.
    """
    if reported is None:
        return [Line(what, count, None) for what, count in audited.lines().items()]
    codes = dict.fromkeys((*audited.codes, *reported.codes), 0)
    counted = Sums(numbers=audited.numbers, codes={**codes, **audited.codes}).lines()
    in_report = Sums(numbers=reported.numbers, codes={**codes, **reported.codes}).lines()
    return [Line(what, count, in_report[what], may_be_less) for what, count in counted.items()]


def disagreements(part: str, lines: list[Line]) -> list[str]:
    """Returns a sentence for each line whose numbers disagree."""
    return [
        f"{part}: {line.audited:,} {line.what.strip()} in the files, {line.reported:,} in report.json"
        for line in lines
        if line.verdict == "NOT EQUAL"
    ]
