"""The sums: what the rows come to, for one run and for the whole output, beside what `report.json` says."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb

from infra.audit.findings import Findings

# What people read -> its name in reports and footers.
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
# A file of which a run exchanged some rows does not say which: what the run did there is its footer's word.
_EXCHANGED = "FROM files WHERE NOT emptied AND run_id = ? AND own IS NOT NULL"


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Counts and work of some files, by the names of `NUMBERS`, and failed records by code."""

    numbers: Mapping[str, int]
    codes: Mapping[str, int] = field(default_factory=dict)

    def lines(self) -> dict[str, int]:
        """What people read -> the number; each code below `failed`."""
        found = {}
        for name, key in NUMBERS.items():
            found[name] = self.numbers.get(key, 0)
            if key == "failed":
                found |= {f"  {code}": count for code, count in sorted(self.codes.items())}
        return found


def whole_sums(database: duckdb.DuckDBPyConnection) -> Sums:
    """What the rows of the whole output come to."""
    counted = _row(database, f"SELECT {_SUMS} FROM sums")
    (num_files,) = _row(database, "SELECT count(*) FROM files WHERE NOT emptied")
    codes = database.execute("SELECT code, count(*) FROM rows WHERE code IS NOT NULL GROUP BY code").fetchall()
    return Sums(numbers=_named(counted, num_files), codes=dict(codes))


def run_sums(run_id: str, database: duckdb.DuckDBPyConnection, findings: Findings) -> Sums:
    """What the rows of a run's files come to, with what it exchanged in files of earlier runs, by their footers."""
    query = f"SELECT {_SUMS}, count(*) FROM files LEFT JOIN sums USING (file) WHERE {_WRITTEN}"
    *counted, num_files = _row(database, query, run_id)
    numbers = Counter(_named(counted, num_files))
    query = (
        f"SELECT code, count(*) FROM rows JOIN files USING (file) WHERE {_WRITTEN} AND code IS NOT NULL GROUP BY code"
    )
    codes = Counter(dict(database.execute(query, [run_id]).fetchall()))
    *said, num_exchanged = _row(database, f"SELECT {_OWN_SUMS}, count(*) {_EXCHANGED}", run_id)
    if num_exchanged:
        numbers.update(_named(said, num_exchanged))
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
    """The same numbers in a part of `report.json`; one that is missing or no number is -1."""
    codes = part.get("failed_by_code")
    return Sums(
        numbers={key: _number(part.get(key)) for key in NUMBERS.values()},
        codes={code: _number(count) for code, count in codes.items()} if isinstance(codes, dict) else {"(none)": -1},
    )


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table.

    Attributes:
        reported: what the report says; None where it says nothing of it.
        may_be_less: later runs may have written over what was counted here.
    """

    what: str
    audited: int
    reported: int | None
    may_be_less: bool = False

    @property
    def verdict(self) -> str:
        """One or two words; empty where there is nothing to compare."""
        if self.reported is None:
            return ""
        if self.reported == self.audited:
            return "equal"
        return "less" if self.may_be_less and self.audited < self.reported else "NOT EQUAL"


def compared(audited: Sums, reported: Sums | None, *, may_be_less: bool = False) -> list[Line]:
    """The audited numbers beside those of the report; codes that only one of them has are zero in the other."""
    if reported is None:
        return [Line(what, count, None) for what, count in audited.lines().items()]
    codes = dict.fromkeys((*audited.codes, *reported.codes), 0)
    counted = Sums(numbers=audited.numbers, codes={**codes, **audited.codes}).lines()
    said = Sums(numbers=reported.numbers, codes={**codes, **reported.codes}).lines()
    return [Line(what, count, said[what], may_be_less) for what, count in counted.items()]


def disagreements(part: str, lines: list[Line]) -> list[str]:
    """A sentence for each line that does not agree."""
    return [
        f"{part}: {line.audited:,} {line.what.strip()} in the files, {line.reported:,} in report.json"
        for line in lines
        if line.verdict == "NOT EQUAL"
    ]
