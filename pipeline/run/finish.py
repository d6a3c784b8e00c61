"""The close: plan against output, then index and report; and the headline of a report."""

import logging
from collections.abc import Sequence
from typing import Any

from pipeline.account.report import Report
from pipeline.account.totals import Footer
from pipeline.output.layout import REPORT_FILE, RUNS, TIMELINE_FILE
from pipeline.output.published import write_index
from pipeline.output.slice_chain import by_shard, chain_of
from pipeline.publish.publish import receipt_read_back
from pipeline.run.build_report import build_report
from pipeline.run.prepare import Run, describe_changes, sink_config
from pipeline.run.remaining import add_receipts, missing, refresh
from pipeline.run.run_limits import bound_by_hours, bound_by_images
from pipeline.run.stopper import Ending
from pipeline.store.storage import put
from pipeline.store.uris import join_uri, shown

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


def find_problems(run: Run) -> list[str]:
    """One sentence for each way in which plan and output do not add up; empty if they do."""
    problems = []
    for shard in missing(run):
        if shard.action == "rewrite":
            # Every record has its row; some are older than they could be. The next run plans them again.
            logger.warning("rewrite.left shard=%s slices=%d", shard.shard, len(shard.rewrites))
        else:
            problems.append(f"{shard.shard}: not all of its slices are published")
    files = by_shard(run.published.values())
    for shard in run.plan.rows:
        there = [file for file in files.get(shard.hash16, []) if shard.etag is None or file.source_etag == shard.etag]
        chain = chain_of(there)
        if chain.complete:
            problems += discrepancies([file.footer for file in chain.files], shard.num_records)
    return problems


def discrepancies(footers: Sequence[Footer], num_records: int | None) -> list[str]:
    """One sentence for each way in which the slices of one shard, in order, do not add up.

    They follow one another without gap or overlap from row 0; each file's rows are its `ok + failed`, and with those
    that were taken out they are its span; where the plan knows how many records there are, so many are covered.
    """
    found = []
    next_row = 0
    for footer in footers:
        where = f"{footer.shard} slice {footer.slice}"
        totals, span = footer.totals, footer.last_row - footer.first_row + 1
        if footer.first_row != next_row:
            found.append(f"{where} begins at row {footer.first_row}, expected {next_row}")
        if not span - len(footer.pruned) == totals.listed == totals.ok + totals.failed:
            found.append(
                f"{where} spans {span} rows, {len(footer.pruned)} of them taken out, but lists {totals.listed} "
                f"= {totals.ok} ok + {totals.failed} failed"
            )
        next_row = footer.last_row + 1
    if num_records is not None and next_row != num_records:
        found.append(f"{footers[0].shard} has {num_records} records but {next_row} published rows")
    return found


def summarise(run: Run, report: Report) -> dict[str, Any]:
    """The report's headline, for the last line of stdout."""
    output = run.config.output.uri
    worked = not run.plan.is_empty
    older = run.plan.summary.older_objects
    but = f", but for {older:,} objects that are older than --since" if older else ""
    return {
        "status": report.status,
        "message": run.bound or report.status if worked else f"nothing to do: every row is published{but}",
        "run_id": report.run_id,
        "output": shown(output),
        "report": shown(join_uri(output, RUNS, report.run_id, REPORT_FILE)) if worked else None,
        "listed": report.run.listed,
        "ok": report.run.ok,
        "failed": report.run.failed,
        "failed_by_code": dict(report.run.failed_by_code),
        "ignored": report.run.ignored + report.ignored,
        "files": report.run.files,
        **describe_changes(run.plan.summary),
        "rows_in_output": report.output.listed,
        "seconds": round(report.seconds.wall, 1),
        **report.rates(),
    }
