"""`report.html`: the page of one run's report and timeline, or a page that compares several runs.

The page holds everything that it needs, runs no script and loads nothing. Names, labels and messages of a report come
from the data; the page shows names, labels and messages as text, and escapes them everywhere.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.output.layout import PAGE_FILE
from pipeline.page import one_run as page_run
from pipeline.page.many_runs import in_order, runs_sections
from pipeline.page.parts import Bar, Figure, Section, at, moment, sequence, shortened, text
from pipeline.page.samples import samples_section
from pipeline.page.spread import labels_section, scores_section, sizes_section
from pipeline.page.timeline_charts import timeline_section
from pipeline.store.store_path import StorePath

logger = logging.getLogger(__name__)

Report = Mapping[str, Any]
Rows = Sequence[Mapping[str, Any]]

_STATUS_CLASSES = {"done": "good", "stopped": "warn", "stalled": "warn", "failed": "bad"}


def render_page(reports: Sequence[Report], timelines: Sequence[Rows]) -> str:
    """Returns the page of one run, or a page that compares several runs.

    Args:
        reports: Contents of `report.json` of each run. Missing or invalid parts of a report are left out.
        timelines: Rows of `timeline.parquet` of each run, in the order of `reports`. Only the page of a single run
            shows a timeline.
    """
    if len(reports) == 1:
        values = _run_values(reports[0], timelines[0] if timelines else [])
    else:
        values = _runs_values(in_order(reports))
    return render(values)


def render(values: Mapping[str, Any]) -> str:
    """Returns the page of the template `report.html.j2`.

    Args:
        values: Variables of the template.
    """
    return _environment().get_template("report.html.j2").render(values)


def write_page(folder: StorePath, report: Report, timeline: Rows) -> StorePath | None:
    """Writes the page of one run into the run's folder; returns the path of the page, or None if writing failed.

    The function raises nothing: if the page cannot be made or written, a line of the log says so, and the status of the
    run does not change.
    """
    page = folder.join(PAGE_FILE)
    try:
        page.put(render_page([report], [timeline]).encode())
    except Exception as error:
        # Any error is caught: the report is written by now, and a run should not fail over its page.
        logger.warning("page.not_written uri=%s error=%s: %s", page, type(error).__name__, error)
        return None
    return page


def _run_values(report: Report, timeline: Rows) -> dict[str, Any]:
    name, status = f"Run {text(at(report, 'run_id'))}", text(at(report, "status"))
    sections = [
        page_run.verdict(report),
        page_run.rates(report),
        timeline_section(timeline),
        page_run.seconds(report),
        sizes_section(report),
        labels_section(report),
        scores_section(report),
        samples_section(report),
        page_run.failures(report),
        page_run.shards(report),
        page_run.processes(report),
        page_run.account(report),
        page_run.configuration(report),
        page_run.versions(report),
    ]
    reason = at(report, "reason")
    return {
        "title": f"{name}, {status}",
        "kind": "report of a run",
        "heading": name,
        "status": status,
        "status_class": _STATUS_CLASSES.get(status, "other"),
        "began": moment(at(report, "started_at"), at(report, "run_id")),
        "reason": None if reason is None else text(reason),
        "problems": [text(line) for line in sequence(at(report, "problems"))],
        "headline": page_run.headline(report),
        "sections": [section for section in sections if section is not None],
    }


def _runs_values(reports: Sequence[Report]) -> dict[str, Any]:
    heading = f"{len(reports):,} runs" if reports else "No runs"
    sections: list[Section] = runs_sections(reports)
    return {
        "title": f"{heading} compared" if reports else heading,
        "kind": "runs of one output",
        "heading": heading,
        "status": None,
        "began": None,
        "reason": None,
        "problems": [],
        "headline": [],
        "sections": sections,
    }


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shortened": shortened, "exact": _exact, "text": text}
    environment.tests |= {"figure": lambda cell: isinstance(cell, Figure), "bar": lambda cell: isinstance(cell, Bar)}
    return environment


def _exact(value: float | None) -> str:
    """Returns a number as JSON text; an empty text for None."""
    return "" if value is None else json.dumps(value)
