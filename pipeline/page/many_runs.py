"""The sections of a page that compares runs: a table of the runs, and charts of their rates."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.page.charts import bars_chart
from pipeline.page.parts import Caption, Cell, Chart, Section, Table, at, figure, moment, number, text

_HEAD = (
    "Run", "Began (UTC)", "Status", "Listed", "Ok", "Failed", "Wall", "Images/s", "Mpix/s", "GMAC/s", "Bound by",
)  # fmt: skip
_RATES = (
    ("images_per_s", "Images a second"),
    ("mpix_per_s", "Megapixels a second"),
    ("gmac_per_s", "Giga-MACs a second"),
)


def in_order(reports: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns the reports ordered by the start of their runs; reports without a start come first."""

    def key(report: Mapping[str, Any]) -> tuple[float, str]:
        began = moment(at(report, "started_at"), at(report, "run_id"))
        return (0.0 if began is None else began.timestamp(), text(at(report, "run_id")))

    return sorted(reports, key=key)


def runs_sections(reports: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Returns the sections of a page that compares runs.

    Args:
        reports: Reports in the order of `in_order`.
    """
    if not reports:
        return [Section(anchor="runs", title="Runs", note="This output has no report of a run yet.")]
    rows = [_row(index, report) for index, report in enumerate(reports)]
    table = Table(caption="Runs, in the order in which they began", head=_HEAD, rows=rows)
    sections = [Section(anchor="runs", title="Runs", tables=[table])]
    charts = [chart for name, title in _RATES if (chart := _chart(name, title, reports)) is not None]
    if charts:
        note = "Over each run's wall time. The numbers below the bars are those of the table."
        sections.append(Section(anchor="rates", title="Rates over runs", note=note, charts=charts))
    return sections


def _row(index: int, report: Mapping[str, Any]) -> list[Cell]:
    began, prefix = moment(at(report, "started_at"), at(report, "run_id")), f"runs.{index}."
    counts = (figure(report, f"run.{name}", prefix=prefix) for name in ("listed", "ok", "failed"))
    rates = (figure(report, f"rates.{name}", "rate", prefix=prefix) for name, _ in _RATES)
    return [
        f"{index + 1}. {text(at(report, 'run_id'))}",
        "–" if began is None else f"{began:%Y-%m-%d %H:%M:%S}",
        text(at(report, "status")),
        *counts,
        figure(report, "seconds.wall", "seconds", prefix=prefix),
        *rates,
        text(at(report, "verdict.bound_by")),
    ]


def _chart(name: str, title: str, reports: Sequence[Mapping[str, Any]]) -> Chart | None:
    values = [number(at(report, f"rates.{name}")) for report in reports]
    if not any(values):
        return None
    ids = [text(at(report, "run_id")) for report in reports]
    tips = [f"{id}: {'–' if value is None else f'{value:,}'}" for id, value in zip(ids, values, strict=True)]
    caption = Caption(f"runs-{name}", title, f"{title} of {len(reports):,} runs, in the order in which they began.")
    numbers = [str(index + 1) for index in range(len(reports))]
    svg = bars_chart(caption, [max(value or 0.0, 0.0) for value in values], numbers, tips, x_label="run")
    rows: list[list[Cell]] = [
        [f"{index + 1}. {id}", figure(report, f"rates.{name}", "rate", prefix=f"runs.{index}.")]
        for index, (id, report) in enumerate(zip(ids, reports, strict=True))
    ]
    return Chart(
        caption=caption,
        svg=svg,
        table=Table(caption=f"{title}, as numbers", head=("Run", title), rows=rows, folded=True),
    )
