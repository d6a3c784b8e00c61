"""The close: plan against output, then index and report; and the headline of a report."""

import importlib.metadata
import platform
import time
from typing import Any

from pipeline.account import Totals, discrepancies
from pipeline.layout import REPORT_FILE, RUNS
from pipeline.output import write_index
from pipeline.prepare import Run, missing, refresh
from pipeline.report import Report, Seconds, Status
from pipeline.storage import put
from pipeline.uris import join_uri, shown

_REPORTED_PACKAGES = ("ray", "torch", "pyarrow", "pillow", "obstore", "pvtv2-batch")


def close(run: Run, status: Status, last_error: str | None) -> Report:
    """Compares the plan with what is published, and writes index and report."""
    output, store = run.config.output.uri, run.config.output.store
    refresh(run)
    planned = [(shard.hash16, shard.num_records) for shard in run.plan.shards]
    problems = []
    if status == "done":
        problems = [f"{shard.shard}: not all of its slices are published" for shard in missing(run)]
        problems += discrepancies(planned, [file.footer for file in run.published.values()])
        if problems and last_error:
            problems.append(f"the last pass dropped work: {last_error}")
    report = build_report(run, "failed" if problems else status, problems)
    write_index(output, store, run.published.values())
    put(join_uri(output, RUNS, run.run_id, REPORT_FILE), report.to_json(), store)
    return report


def build_report(run: Run, status: Status, problems: list[str]) -> Report:
    """What the run came to; its sums are those of the published files' footers."""
    footers = [file.footer for file in run.published.values()]
    own = sum((footer.totals for footer in footers if footer.run_id == run.run_id), Totals())
    put_s = sum(receipt.put_s for receipt in run.receipts)
    steady = None
    if run.first_row_at is not None and run.last_row_at is not None:
        steady = run.last_row_at - run.first_row_at
    processors = run.processors
    return Report(
        run_id=run.run_id,
        status=status,
        identity=run.identity,
        run=own,
        output=sum((footer.totals for footer in footers), Totals()),
        ignored=run.plan.ignored,
        problems=tuple(problems),
        seconds=Seconds(
            wall=time.time() - run.started_at,
            model_load=run.checkpoint.load_s,
            first_row=None if run.first_row_at is None else run.first_row_at - run.started_at,
            steady=steady,
            steps={**own.seconds, "put": put_s} if run.receipts else own.seconds,
        ),
        actors={}
        if processors is None
        else {"device": processors.device, "min": processors.num_actors[0], "max": processors.num_actors[1]},
        versions=_versions(),
        passes=run.passes,
        replayed_chunks=sum(state.replayed_chunks for state in run.counters),
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _REPORTED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def summarise(run: Run, report: Report) -> dict[str, Any]:
    """The report's headline, for the last line of stdout."""
    output = run.config.output.uri
    worked = bool(run.plan.shards)
    return {
        "status": report.status,
        "message": report.status if worked else "nothing to do: every row is published",
        "run_id": report.run_id,
        "output": shown(output),
        "report": shown(join_uri(output, RUNS, report.run_id, REPORT_FILE)) if worked else None,
        "listed": report.run.listed,
        "ok": report.run.ok,
        "failed": report.run.failed,
        "failed_by_code": dict(report.run.failed_by_code),
        "ignored": report.run.ignored + report.ignored,
        "files": report.run.files,
        "changed_shards": run.plan.num_changed,
        "rows_in_output": report.output.listed,
        "seconds": round(report.seconds.wall, 1),
        **report.rates(),
    }
