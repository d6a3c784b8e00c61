"""Makes one audit: fills the tables from inputs and output, runs the checks, and compares the sums with the reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.audit.account import Line, Sums, compared, disagreements, reported_sums, run_sums, whole_sums
from infra.audit.file_checks import check_files, check_index, check_slices
from infra.audit.findings import Findings, UnusableError
from infra.audit.ids import define_ids
from infra.audit.inputs import Inputs, list_records
from infra.audit.names import Selection
from infra.audit.places import Store, canonical, is_inside
from infra.audit.published import Output, load_rows, open_output
from infra.audit.record_checks import check_records
from infra.audit.tables import first_line, opened_tables

_NOT_COUNTED = (
    "not counted again: sizes of images, which takes decoding them; encoded bytes of images in Parquet; names that "
    "were passed over; seconds. Not seen: pixels, and so whether an answer is that of its image"
)


@dataclass(frozen=True, kw_only=True)
class Request:
    """The flags of the command; docs/operate/audit.md describes them."""

    input: Sequence[str]
    output: str
    run_id: str | None = None
    input_format: str = "auto"
    strict: bool = False
    endpoint_url: str | None = None
    memory_limit: str = "2GB"
    temp_dir: str | None = None


def audit(request: Request, findings: Findings) -> dict[str, list[Line]]:
    """Returns the tables of an audit by their titles; disagreements and notes go to `findings`.

    Raises:
        UnusableError: An input or the output cannot be audited.
    """
    store = Store(request.endpoint_url)
    output = open_output(canonical(request.output), store)
    roots = tuple(dict.fromkeys(map(canonical, request.input)))
    for root in roots:
        if is_inside(output.uri, root):
            raise UnusableError(f"the output {output.uri} lies inside the input {root}")
    if not output.runs:
        raise UnusableError(f"{output.uri} holds no run")
    newest = output.runs[-1]
    run_id = request.run_id or newest
    if run_id not in output.runs:
        raise UnusableError(f"{output.uri} holds no run {run_id!r}; the newest is {newest}")
    report = _report(output, run_id, store, findings)
    last = report if run_id == newest else _report(output, newest, store, findings)
    # True if the last run ended by itself, so that the output should have all rows of the run.
    is_finished = last is not None and last.get("status") in ("done", "failed")
    # Records older than `--since` have no row, and no report says which records these are.
    has_all = is_finished and not _num_older(last)
    inputs = Inputs(roots=roots, input_format=request.input_format, selection=Selection.of(output.identity))
    with opened_tables(request.memory_limit, request.temp_dir) as (database, scratch):
        define_ids(database, inputs.selection.rules)
        list_records(inputs, store, database, scratch, findings)
        load_rows(output, store, database, scratch, findings)
        check_files(output, database, findings)
        check_slices(database, findings, is_finished=is_finished)
        check_index(output, store, database, scratch, findings, is_finished=is_finished)
        limit = output.identity["records"]["limit"]
        counts = check_records(
            database, findings, is_finished=has_all, is_strict=request.strict, limit=limit, rules=output.rules
        )
        of_run = compared(run_sums(run_id, database, findings), _sums_in(report, "run"), may_be_less=run_id != newest)
        of_output = compared(whole_sums(database), _sums_in(last, "output"))
    findings.add(disagreements("this run", of_run))
    findings.add(disagreements("the whole output", of_output))
    _note_how_it_ended(report, run_id, newest, findings)
    return {
        f"run {run_id}": of_run,
        "the whole output": of_output,
        "the inputs": [Line(what, count, None) for what, count in counts.items()],
    }


def _report(output: Output, run_id: str, store: Store, findings: Findings) -> dict[str, Any] | None:
    """Returns the report of a run; None if the report is missing or cannot be read, which becomes a finding."""
    name = f"runs/{run_id}/report.json"
    try:
        report = output.report(run_id, store)
    except ValueError as error:
        findings.add([f"{name} is no report: {first_line(error)}"])
        return None
    if report is None:
        findings.add([f"{name} is not there, so its sums are compared with nothing; was the run killed?"],
                     is_problem=False)  # fmt: skip
    elif report.get("run_id") != run_id:
        findings.add([f"{name} is that of another run, {report.get('run_id')!r}"])
    return report


def _sums_in(report: Mapping[str, Any] | None, part: str) -> Sums | None:
    return None if report is None else reported_sums(report[part])


def _num_older(report: Mapping[str, Any] | None) -> int:
    """Returns the number of objects that a run left out because of its `--since`."""
    return 0 if report is None else report.get("left_out", {}).get("older_objects", 0)


def _note_how_it_ended(report: Mapping[str, Any] | None, run_id: str, newest: str, findings: Findings) -> None:
    status = None if report is None else report.get("status")
    if status == "failed":
        findings.add(["the run itself says that its accounts do not close"])
    elif status is not None and status != "done":
        findings.add([f"the run ended early ({status}), so that what is missing is no disagreement"], is_problem=False)
    if older := _num_older(report):
        findings.add([f"the run left out {older:,} objects that are older than its --since, so that what is missing is "
                      "no disagreement"], is_problem=False)  # fmt: skip
    if run_id != newest:
        findings.add(["later runs may have written over files of this one: less than it reported is no disagreement"],
                     is_problem=False)  # fmt: skip
    findings.add([_NOT_COUNTED], is_problem=False)
