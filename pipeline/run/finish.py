"""Ends a run: compares the plan with the output, then writes the index, the report and the page."""

import logging

from pipeline.account.report import Report
from pipeline.output.ids import state_of_files
from pipeline.output.layout import REPORT_FILE, TIMELINE_FILE
from pipeline.output.published import files_with_unique_ids, write_index
from pipeline.publish.publish import receipt_read_back
from pipeline.run.build_report import build_report
from pipeline.run.ledger import Ledger
from pipeline.run.reconcile import doubled_ids, find_problems
from pipeline.run.remaining import receipted_files, refresh
from pipeline.run.run import Run
from pipeline.run.run_limits import bound_by_hours, bound_by_images
from pipeline.run.step_settings import sink_config
from pipeline.run.stopper import Ending

logger = logging.getLogger(__name__)


def finish(run: Run, ledger: Ledger, last_error: str | None) -> Report:
    """Compares the plan with the published files; writes index, report and page; returns the report.

    If `--max-images` bounded the plan, the report has the status `stopped`, although the run has done its whole plan.

    Args:
        last_error: last error of the last pass; None if there was none.
    """
    refresh(run, ledger)
    _take_lost_receipts(run, ledger)
    files = ledger.files.values()
    doubled = doubled_ids(run.config.output.folder, files)
    problems = find_problems(run.plan, ledger.files) + doubled
    bound = None if problems else bound_by_images(run)
    ledger.note_bound(bound)
    reason = bound
    if problems and last_error:
        reason = f"the last pass dropped work: {last_error}"
        problems.insert(0, reason)
    report = build_report(run, ledger, "failed" if problems else "stopped" if bound else "done", problems, reason)
    write_index(run.config.output.folder, files, None if doubled else state_of_files(files))
    _write_report(run, ledger, report)
    _write_page(run, ledger, report)
    return report


def finish_without_work(run: Run, ledger: Ledger) -> Report:
    """Returns the report of a run that finds nothing to do; writes nothing.

    The ids of the rows are compared only if the run that wrote the index has not compared the ids of these files.
    """
    output, files = run.config.output.folder, ledger.files.values()
    problems = []
    if files and files_with_unique_ids(output) != state_of_files(files):
        problems = doubled_ids(output, files)
    return build_report(run, ledger, "failed" if problems else "done", problems)


def finish_early(run: Run, ledger: Ledger, ending: Ending) -> Report:
    """Writes report, index and page of a run that ended before its work was done; returns the report.

    Ray kills a job three seconds after the request to stop, so there is no time to list the output. The files
    that this run published are known from the receipts. The next run reads the files that the index lacks.
    """
    ledger.take_files(receipted_files(ledger.receipts))
    bound = bound_by_hours(run, ledger.files, ending) if ending.is_bound else None
    ledger.note_bound(bound)
    report = build_report(run, ledger, ending.status, [], bound or ending.reason)
    _write_report(run, ledger, report)
    write_index(run.config.output.folder, ledger.files.values())
    _write_page(run, ledger, report)
    return report


def _take_lost_receipts(run: Run, ledger: Ledger) -> None:
    """Reads receipts that did not arrive, such as the last receipts of a dead collector, back from this run's files."""
    known = {receipt.file for receipt in ledger.receipts}
    for file in ledger.files.values():
        if file.run_id == run.run_id and not file.emptied and file.file not in known:
            logger.info("receipt.read_back file=%s", file.file)
            ledger.take_receipts([receipt_read_back(file, sink_config(run))])


def _write_report(run: Run, ledger: Ledger, report: Report) -> None:
    """Writes the timeline, then the report; logs the rows that failed because of bugs.

    The report is written last, so that the account of a run with a `report.json` is complete.
    """
    run.folder.join(TIMELINE_FILE).put(ledger.timeline.to_parquet())
    run.folder.join(REPORT_FILE).put(report.to_json())
    for place, num_rows in report.run.failed_by_bug.items():
        logger.error("rows.failed_by_bug place=%s rows=%d", place, num_rows)


def _write_page(run: Run, ledger: Ledger, report: Report) -> None:
    """Writes the page after everything else, because the page takes a second that a stopped job may not have."""
    # Imported here, since the page loads the library that draws the charts.
    from pipeline.page.page import write_page

    write_page(run.folder, report.to_dict(), list(ledger.timeline.rows()))
