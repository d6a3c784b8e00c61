"""Makes a page from the report and timeline of a run, or a page that compares several runs.

    python jobs/report.py s3://bucket/labels
    python jobs/report.py s3://bucket/labels --run-id 20261126T172350Z-ff3b --html run.html

Without --run-id all runs of the output are compared. The page is one HTML file that loads no other file. The last line
of stdout is a summary as JSON; logs go to stderr.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Python puts the folder of a script on the path of modules, but not the folder that holds the packages.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.cli.command import configure_logging, run_command
from jobs.cli.flags import Parser, add_output_store_flags, output_place
from pipeline.errors import OutputError
from pipeline.output.layout import PAGE_FILE, RUNS
from pipeline.output.past_runs import read_reports, read_timeline, run_ids
from pipeline.page.page import render_page
from pipeline.store.errors import StoreError

_HTML_HELP = "where the page goes, a path or URI; default: report.html in the run's folder, or in runs/ for several"


def report(arguments: Sequence[str], _: object = None) -> dict[str, Any]:
    """Makes the page; returns the summary."""
    started_at = time.time()
    flags = _parser().parse_args(arguments)
    configure_logging(flags.log_level)
    output = output_place(flags.output, flags)
    ids = list(dict.fromkeys(flags.run_id)) or run_ids(output)
    reports = read_reports(output, ids)
    timelines = [read_timeline(output, ids[0])] if len(ids) == 1 else []
    if flags.html:
        page = output_place(flags.html, flags)
    else:
        page = output.join(RUNS, *(ids if len(ids) == 1 else []), PAGE_FILE)
    try:
        page.put(render_page(reports, timelines).encode())
    except StoreError as error:
        raise OutputError(f"{page} cannot be written: {error}") from error
    return {
        "status": "done",
        "page": page.shown,
        "runs": ids,
        "seconds": round(time.time() - started_at, 1),
        "exit_code": 0,
    }


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("output", metavar="OUTPUT", help="the --output of a job: path, s3://, gs:// or az://")
    add("--run-id", action="extend", nargs="+", default=[], metavar="ID", help="which runs; default: all of them")
    add("--html", metavar="FILE", help=_HTML_HELP)
    add_output_store_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(report, sys.argv[1:]))
