"""`python -m infra.audit --input ... --output ...`: prints counted numbers beside the numbers that the job reported.

Exit codes: 0 all agrees, 2 wrong arguments or a folder that is no output, 7 something disagrees.
"""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence

import duckdb

from infra.audit.account import Line
from infra.audit.audit import Request, audit
from infra.audit.findings import Findings, UnusableError
from infra.audit.formats import format_choices
from infra.audit.tables import first_line

_UNUSABLE, _DISAGREES = 2, 7


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs an audit and prints its tables and sentences; returns the exit code."""
    flags = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("infra").setLevel(logging.INFO)
    findings = Findings()
    try:
        tables = audit(Request(**vars(flags)), findings)
    except (UnusableError, OSError, duckdb.Error) as error:
        print(f"error: {first_line(error)}", file=sys.stderr)
        return _UNUSABLE
    print(_printed(flags.output, tables, findings))
    return _DISAGREES if findings.problems else 0


def _printed(output: str, tables: Mapping[str, Sequence[Line]], findings: Findings) -> str:
    """Returns the printed text: the tables, then the sentences of the findings, then the verdict."""
    blocks = [f"audit of {output}"]
    blocks += [_table(title, lines) for title, lines in tables.items()]
    if findings.notes:
        blocks.append("\n".join(["To know:", *(f"  {_visible(sentence)}" for sentence in findings.notes)]))
    if findings.problems:
        blocks.append("\n".join(["What disagrees:", *(f"  {_visible(sentence)}" for sentence in findings.problems)]))
    blocks.append("Something disagrees." if findings.problems else "All of it agrees.")
    return "\n\n".join(blocks)


def _visible(sentence: str) -> str:
    """Returns a sentence whose control characters are escaped, since a name may hold commands for a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in sentence)


def _table(title: str, lines: Sequence[Line]) -> str:
    is_reported = any(line.reported is not None for line in lines)
    rows = [_row(title, "audited", "report" if is_reported else "", "")]
    for line in lines:
        reported = "" if line.reported is None else "none" if line.reported < 0 else f"{line.reported:,}"
        rows.append(_row("  " + line.what, f"{line.audited:,}", reported, line.verdict))
    return "\n".join(rows)


def _row(what: str, audited: str, reported: str, mark: str) -> str:
    return f"{what:<34}{audited:>20}{reported:>20}  {mark}".rstrip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.audit", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--input", required=True, nargs="+", action="extend", metavar="URI", help="all inputs of the output's runs")
    add("--output", required=True, metavar="URI", help="what the runs wrote to")
    add("--run-id", help="the run whose own sums are compared; default: the newest, by name")
    add("--input-format", choices=format_choices(), default="auto", help="as the runs had it")
    add("--strict", action="store_true", help="rows of records that are gone are a disagreement, too")
    add("--endpoint-url", metavar="URL", help="of S3; default: AWS_ENDPOINT_URL, else AWS")
    add("--memory-limit", default="2GB", metavar="SIZE", help="of the database, which spills beyond it; default 2GB")
    add("--temp-dir", metavar="DIR", help="where the database, and copies of some objects of S3, lie meanwhile")
    return parser


if __name__ == "__main__":
    sys.exit(main())
