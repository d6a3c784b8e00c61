"""The section of a run's timeline: charts of each step over time."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.page.charts import NUM_SERIES, compact, stacked_chart, steps_chart
from pipeline.page.parts import Caption, Cell, Chart, Figure, Section, Table, moment, number, text

FLOW = ("read", "decode", "compute", "write")
_MAX_BUCKETS = 120
_RATES = (("images", "Images", 1.0), ("pixels", "Megapixels", 1e6), ("macs", "Giga-MACs", 1e9))


@dataclass
class _Step:
    """The work of one step's processes in each bucket of time."""

    busy_s: list[float]
    work: dict[str, list[float]]
    processes: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Timeline:
    """The work of each step in buckets of equal width.

    Attributes:
        width_s: Width of a bucket: a multiple of the rows' width, so that a chart can show all buckets.
        num_buckets: Number of buckets.
        steps: Work by step, in the order of the flow.
    """

    width_s: float
    num_buckets: int
    steps: Mapping[str, _Step]

    def edges(self, unit_s: float) -> list[float]:
        """Returns the bounds of the buckets, in units of `unit_s` seconds from the beginning of the first bucket."""
        return [index * self.width_s / unit_s for index in range(self.num_buckets + 1)]

    def busy_share(self, step: str) -> list[float]:
        """Returns the busy share of a step's processes in each bucket, from 0 to 1.

        All processes that the step has in the timeline count, also processes that had no work in the bucket.
        """
        found = self.steps[step]
        return [busy_s / self.width_s / max(len(found.processes), 1) for busy_s in found.busy_s]

    def rate(self, step: str, quantity: str) -> list[float]:
        """Returns images, pixels or MACs per second for each bucket."""
        return [value / self.width_s for value in self.steps[step].work[quantity]]


def gather(rows: Sequence[Mapping[str, Any]]) -> Timeline | None:
    """Returns the timeline of the rows of `timeline.parquet`; None if no row is valid. Invalid rows are skipped."""
    read = []
    for row in rows if isinstance(rows, Sequence) else ():
        if isinstance(row, Mapping):
            begin, width_s = moment(row.get("begins_at")), number(row.get("width_s"))
            if begin is not None and width_s is not None and 0 < width_s < 1e9:
                read.append((begin.timestamp(), float(width_s), row))
    if not read:
        return None
    start_s = min(begin_s for begin_s, _, _ in read)
    span_s = max(begin_s + row_s for begin_s, row_s, _ in read) - start_s
    bucket_s = min(row_s for _, row_s, _ in read)
    bucket_s *= max(1, math.ceil(span_s / bucket_s / _MAX_BUCKETS - 1e-6))
    num_buckets = max(1, math.ceil(span_s / bucket_s - 1e-6))
    found: defaultdict[str, _Step] = defaultdict(
        lambda: _Step([0.0] * num_buckets, {name: [0.0] * num_buckets for name, _, _ in _RATES})
    )
    for begin_s, _, row in read:
        step = found[text(row.get("step"))]
        bucket = min(int((begin_s - start_s) / bucket_s + 1e-6), num_buckets - 1)
        step.busy_s[bucket] += max(number(row.get("busy_s")) or 0.0, 0.0)
        for name, values in step.work.items():
            values[bucket] += max(number(row.get(name)) or 0.0, 0.0)
        step.processes.add(text(row.get("process")))
    order = [step for step in FLOW if step in found] + sorted(set(found) - {*FLOW})
    return Timeline(bucket_s, num_buckets, {step: found[step] for step in order[:NUM_SERIES]})


def timeline_section(rows: Sequence[Mapping[str, Any]]) -> Section | None:
    """Returns the section of throughput and of each step's busy share over time; None without a valid row."""
    timeline = gather(rows)
    if timeline is None:
        return None
    span_s = timeline.width_s * timeline.num_buckets
    unit, unit_s = ("hours", 3600.0) if span_s > 3 * 3600 else ("minutes", 60.0) if span_s > 180 else ("seconds", 1.0)
    label, edges = f"{unit} since the first work", timeline.edges(unit_s)
    counted = "compute" if "compute" in timeline.steps else list(timeline.steps)[-1]
    charts, columns = [], []
    for quantity, name, size in _RATES:
        values = [value / size for value in timeline.rate(counted, quantity)]
        if any(values):
            title = f"{name} a second"
            caption = Caption(f"timeline-{quantity}", title, f"{title} in the step {counted}. {_range(values)}")
            charts.append(Chart(caption=caption, svg=steps_chart(caption, edges, values, x_label=label)))
            columns.append((title, quantity, values))
    at_work = [[busy_s / timeline.width_s for busy_s in step.busy_s] for step in timeline.steps.values()]
    caption = Caption("timeline-stacked", "Processes at work, by step", "How many processes each step kept busy.")
    colors = range(len(at_work))
    svg = stacked_chart(caption, edges, at_work, x_label=label, colors=colors)
    charts.append(Chart(caption=caption, svg=svg, legend=list(zip(timeline.steps, colors, strict=True))))
    for color, step in enumerate(timeline.steps):
        shares = timeline.busy_share(step)
        title = f"{step}: busy share"
        caption = Caption(f"timeline-step-{color}", title, f"How busy the processes of {step} were. {_range(shares)}")
        svg = steps_chart(caption, edges, shares, x_label=label, top=1.0, color=color)
        charts.append(Chart(caption=caption, svg=svg))
        columns.append((title, f"busy.{color}", shares))
    head = [f"From ({unit})", *(title for title, _, _ in columns)]
    table: list[list[Cell]] = [
        [f"{edges[bucket]:,.4g}", *(_cell(name, bucket, values[bucket]) for _, name, values in columns)]
        for bucket in range(timeline.num_buckets)
    ]
    folded = Table(caption="The timeline as numbers", head=head, rows=table, folded=True)
    note = "A step that is busy all the time is what the run waits for."
    return Section(anchor="timeline", title="Over time", note=note, charts=charts, tables=[folded])


def _cell(name: str, bucket: int, value: float) -> Figure:
    return Figure(f"timeline.{name}.{bucket}", value, "share" if name.startswith("busy") else "rate")


def _range(values: Sequence[float]) -> str:
    return f"From {compact(min(values))} to {compact(max(values))}, {compact(sum(values) / len(values))} on average."
