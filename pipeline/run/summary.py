"""Makes the summary of a run, which a command prints as the last line of stdout."""

from typing import Any

from pipeline.account.report import Report
from pipeline.output.layout import REPORT_FILE
from pipeline.plan.plan_summary import PlanSummary
from pipeline.run.left_out import passed_over
from pipeline.run.run import Run


def describe_plan(run: Run) -> dict[str, Any]:
    """Returns the summary of a dry run: the counts of the work that the run would do."""
    plan, summary = run.plan, run.plan.summary
    return {
        "dry_run": True,
        "output": run.config.output.folder.shown,
        "shards": plan.num_shards,
        "shards_by_format": dict(plan.by_format),
        "shards_by_action": dict(plan.by_action),
        "images": plan.num_images,
        "shards_not_counted": plan.num_uncounted,
        "bytes": plan.num_bytes,
        **describe_changes(summary),
        "ignored": plan.num_ignored,
        "passed_over": dict(plan.passed_over),
    }


def describe_changes(summary: PlanSummary) -> dict[str, int]:
    """Returns the planner's counts of complete and changed shards, records to retry or remove, and work left out."""
    return {
        "complete_shards": summary.complete_shards,
        "changed_shards": summary.changed_shards,
        "retried_records": summary.retried_records,
        "removed_records": summary.removed_records,
        "pruned_records": summary.pruned_records,
        **describe_left_out(summary),
    }


def describe_left_out(summary: PlanSummary) -> dict[str, int]:
    """Returns the counts of objects, images and shards that `--since` and `--max-images` keep out of the plan."""
    return {
        "older_objects": summary.older_objects,
        "postponed_images": summary.postponed_images,
        "postponed_shards": summary.postponed_shards,
    }


def summarise(run: Run, bound: str | None, report: Report) -> dict[str, Any]:
    """Returns the summary of a run that has ended: the most important figures of the report.

    Args:
        bound: sentence that says which bound ended the run; None if no bound ended the run.
    """
    output = run.config.output.folder
    worked = not run.plan.is_empty
    older = run.plan.summary.older_objects
    but = f", but for {older:,} objects that are older than --since" if older else ""
    return {
        "status": report.status,
        "message": bound or report.status if worked else f"nothing to do: every row is published{but}",
        "run_id": report.run_id,
        "output": output.shown,
        "report": run.folder.join(REPORT_FILE).shown if worked else None,
        "listed": report.run.listed,
        "ok": report.run.ok,
        "failed": report.run.failed,
        "failed_by_code": dict(report.run.failed_by_code),
        "failed_by_bug": dict(report.run.failed_by_bug),
        "ignored": report.run.ignored + report.ignored,
        "passed_over": passed_over(report),
        "files": report.run.files,
        **describe_changes(run.plan.summary),
        "rows_in_output": report.output.listed,
        "seconds": round(report.seconds.wall, 1),
        **report.rates(),
    }
