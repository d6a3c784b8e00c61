"""The close: plan against output, then index and report; and the headline of a report."""

import logging

from pipeline.account.report import Report
from pipeline.output.layout import REPORT_FILE, RUNS, TIMELINE_FILE
from pipeline.output.published import write_index
from pipeline.publish.publish import receipt_read_back
from pipeline.run.build_report import build_report
from pipeline.run.reconcile import find_problems
from pipeline.run.remaining import add_receipts, refresh
from pipeline.run.run_limits import bound_by_hours, bound_by_images
from pipeline.run.state import Run
from pipeline.run.step_settings import sink_config
from pipeline.run.stopper import Ending
from pipeline.store.storage import put
from pipeline.store.uris import join_uri

logger = logging.getLogger(__name__)


def close(run: Run, last_error: str | None) -> Report:
    """Compares the plan with what is published, and writes index and report.

    A run whose plan was bounded has done all that it planned when this finds no problem, and is stopped all the same.
    """
    output, store = run.config.output.uri, run.config.output.store
    refresh(run)
    _take_unheard(run)
    problems = find_problems(run)
    if problems and last_error:
        problems.append(f"the last pass dropped work: {last_error}")
    run.bound = None if problems else bound_by_images(run)
    report = build_report(run, "failed" if problems else "stopped" if run.bound else "done", problems, run.bound)
    write_index(output, store, run.published.values())
    _write_report(run, report)
    _write_page(run, report)
    return report


def _take_unheard(run: Run) -> None:
    """Reads back what this run published and nobody told of: a collector that dies takes its last second with it."""
    heard = {receipt.file for receipt in run.receipts}
    for file in run.published.values():
        if file.run_id == run.run_id and not file.emptied and file.file not in heard:
            logger.info("receipt.read_back file=%s", file.file)
            run.take([receipt_read_back(file, sink_config(run))])


def close_early(run: Run, ending: Ending) -> Report:
    """Writes the report of a run that was ended before its work was done, and after it the index.

    Ray kills a job three seconds after it told it to stop. So nothing is listed here: the receipts tell what this run
    published. What the index lacks, the next run reads from the files.
    """
    output, store = run.config.output.uri, run.config.output.store
    add_receipts(run)
    run.bound = bound_by_hours(run, ending) if ending.is_bound else None
    report = build_report(run, ending.status, [], run.bound or ending.reason)
    _write_report(run, report)
    write_index(output, store, run.published.values())
    _write_page(run, report)
    return report


def _write_report(run: Run, report: Report) -> None:
    """Puts the account into the run's folder; with `report.json`, which comes last, all of it is there."""
    folder, store = join_uri(run.config.output.uri, RUNS, run.run_id), run.config.output.store
    put(join_uri(folder, TIMELINE_FILE), run.timeline.to_parquet(), store)
    put(join_uri(folder, REPORT_FILE), report.to_json(), store)


def _write_page(run: Run, report: Report) -> None:
    """Puts the page beside it, the last thing of all: a job that is stopped may not have the second that it takes."""
    # Here and not above: it loads what draws the charts.
    from pipeline.page.page import write_page

    folder = join_uri(run.config.output.uri, RUNS, run.run_id)
    write_page(folder, report.to_dict(), list(run.timeline.rows()), run.config.output.store)
