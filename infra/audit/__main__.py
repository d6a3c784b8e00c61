"""`python -m infra.audit --input ... --output ...`: prints counted numbers beside the numbers that the job reported.

Exit codes: 0 all agrees, 2 wrong arguments or a folder that is no output, 7 something disagrees.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

import duckdb

from infra.audit.audit import Request, audit
from infra.audit.findings import Findings, UnusableError
from infra.audit.formats import format_choices
from infra.audit.printing import printed
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
    print(printed(flags.output, tables, findings))
    return _DISAGREES if findings.problems else 0


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
