"""The finish: plan against output, then index, report and page."""

import logging

from pipeline.account.report import Report
from pipeline.output.layout import REPORT_FILE, TIMELINE_FILE
from pipeline.output.published import write_index
from pipeline.publish.publish import receipt_read_back
from pipeline.run.build_report import build_report
from pipeline.run.ledger import Ledger
from pipeline.run.reconcile import find_problems
from pipeline.run.remaining import receipted_files, refresh
from pipeline.run.run import Run
from pipeline.run.run_limits import bound_by_hours, bound_by_images
from pipeline.run.step_settings import sink_config
from pipeline.run.stopper import Ending
from pipeline.store.storage import put
from pipeline.store.uris import join_uri

logger = logging.getLogger(__name__)


def finish(run: Run, ledger: Ledger, last_error: str | None) -> Report:
    """Compares the plan with what is published, and writes index and report.

    A run whose plan was bounded has done all that it planned when this finds no problem, and is stopped all the same.
    """
    refresh(run, ledger)
    _take_unheard(run, ledger)
    problems = find_problems(run.plan, ledger.files)
    if problems and last_error:
        problems.append(f"the last pass dropped work: {last_error}")
    bound = None if problems else bound_by_images(run)
    ledger.note_bound(bound)
    report = build_report(run, ledger, "failed" if problems else "stopped" if bound else "done", problems, bound)
    _write_index(run, ledger)
    _write_report(run, ledger, report)
    _write_page(run, ledger, report)
    return report


def finish_early(run: Run, ledger: Ledger, ending: Ending) -> Report:
    """Writes the report of a run that was ended before its work was done, and after it the index.

    Ray kills a job three seconds after it told it to stop. So nothing is listed here: the receipts tell what this run
    published. What the index lacks, the next run reads from the files.
    """
    ledger.take_files(receipted_files(ledger.receipts))
    bound = bound_by_hours(run, ledger.files, ending) if ending.is_bound else None
    ledger.note_bound(bound)
    report = build_report(run, ledger, ending.status, [], bound or ending.reason)
    _write_report(run, ledger, report)
    _write_index(run, ledger)
    _write_page(run, ledger, report)
    return report


def _take_unheard(run: Run, ledger: Ledger) -> None:
    """Reads back what this run published and nobody told of: a collector that dies takes its last second with it."""
    heard = {receipt.file for receipt in ledger.receipts}
    for file in ledger.files.values():
        if file.run_id == run.run_id and not file.emptied and file.file not in heard:
            logger.info("receipt.read_back file=%s", file.file)
            ledger.take_receipts([receipt_read_back(file, sink_config(run))])


def _write_index(run: Run, ledger: Ledger) -> None:
    write_index(run.config.output.uri, run.config.output.store, ledger.files.values())


def _write_report(run: Run, ledger: Ledger, report: Report) -> None:
    """Puts the account into the run's folder; with `report.json`, which comes last, all of it is there."""
    store = run.config.output.store
    put(join_uri(run.folder, TIMELINE_FILE), ledger.timeline.to_parquet(), store)
    put(join_uri(run.folder, REPORT_FILE), report.to_json(), store)


def _write_page(run: Run, ledger: Ledger, report: Report) -> None:
    """Puts the page beside it, the last thing of all: a job that is stopped may not have the second that it takes."""
    # Here and not above: it loads what draws the charts.
    from pipeline.page.page import write_page

    write_page(run.folder, report.to_dict(), list(ledger.timeline.rows()), run.config.output.store)
