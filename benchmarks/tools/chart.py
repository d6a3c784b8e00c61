"""Draws a chart of results: how many times as fast as each contender our network or job is.

    python -m benchmarks.tools.chart benchmarks/results/{model,job}-b0.json --out docs/peers.svg

Each report has one panel. The SVG has no background, and its lines and letters are dark on a light page and light on a
dark page. The script needs matplotlib (`make bench-env`).
"""

import argparse
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# A colour that nothing else has; the written SVG has the page's own colour in its place.
INK = "#010203"
COLORS = ("#3b82c4", "#7fb3e0", "#d9822b", "#efb36b")
SAME = "#8b949e"
STYLE = (
    "<style>svg { color: #1f2328; } @media (prefers-color-scheme: dark) { svg { color: #e6edf3; } } "
    "text { font-family: system-ui, sans-serif; }</style>"
)
NEAR_ONE = 0.8
HEIGHT_IN_OF_BAR = 0.17
WIDTH_IN = 8.5

Bars = list[tuple[str, list[tuple[str, float]]]]


def bars(report: dict[str, Any]) -> Bars:
    """Returns groups of bars; a bar is (name of the contender, how many times as fast as the contender ours is).

    A report of the network gives the cases with the allocator tuned. A report of the job gives whole runs at the same
    pixels as ours.
    """
    if report["benchmark"] == "job":
        native = [name for name, pixels in report["pixels"].items() if pixels == "native" and name != "ours"]
        by_name = {name: report["ours_times_as_fast"][name]["whole_images_per_s"] for name in native}
        return [(name, [("whole run", ratio)]) for name, ratio in by_name.items() if ratio is not None]
    groups: dict[str, list[tuple[str, float]]] = {}
    for row in report["results"]:
        if row["allocator"] == "tuned" and not row["contender"].startswith("ours"):
            group = groups.setdefault(f"{row['case']}, {row['precision']}", [])
            group.append((row["contender"], row["ours_times_as_fast"]))
    return list(groups.items())


def title(report: dict[str, Any]) -> str:
    """Returns the title of a report's panel."""
    if report["benchmark"] == "job":
        what = f"the whole job at native size, {report['precision']}, {report['machine']['cpus']} cores"
    else:
        what = f"the network alone, {report['variant'].upper()}, one thread"
    return f"How many times as fast ours is: {what}"


def svg(reports: Sequence[dict[str, Any]]) -> str:
    """Returns the chart as SVG."""
    panels = [bars(report) for report in reports]
    heights = [sum(len(group) + 1 for _, group in panel) + 3 for panel in panels]
    settings = {
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.edgecolor": INK,
    }
    constant = {"svg.fonttype": "none", "svg.hashsalt": "pvtv2", "font.size": 9}
    with pyplot.rc_context(settings | constant):
        figure, axes = pyplot.subplots(
            len(panels),
            squeeze=False,
            layout="constrained",
            height_ratios=heights,
            figsize=(WIDTH_IN, HEIGHT_IN_OF_BAR * sum(heights)),
        )
        for axis, panel, report in zip(axes[:, 0], panels, reports, strict=True):
            _draw(axis, panel, title(report))
        _add_legend(figure, axes[:, 0])
        body = io.StringIO()
        figure.savefig(body, format="svg", transparent=True, metadata={"Date": None})
        pyplot.close(figure)
    text = body.getvalue().replace(INK, "currentColor")
    start = text.index(">", text.index("<svg")) + 1
    return text[:start] + STYLE + text[start:]


def _draw(axis: Axes, panel: Bars, heading: str) -> None:
    names = list(dict.fromkeys(name for _, group in panel for name, _ in group))
    place, ticks = 0.0, []
    for _, group in panel:
        ticks.append(place + (len(group) - 1) / 2)
        for name, ratio in group:
            axis.barh(place, ratio, 0.85, color=COLORS[names.index(name) % len(COLORS)], label=name)
            # The number must not lie on the line at 1.
            end = (1 if NEAR_ONE < ratio < 1 else ratio, place)
            axis.annotate(f"{ratio:.2f}", end, (3, 0), textcoords="offset points", va="center", fontsize=8)
            place += 1
        place += 1
    axis.axvline(1, color=SAME, linewidth=1, linestyle="--", zorder=0)
    axis.set_yticks(ticks, [name for name, _ in panel])
    axis.set_ylim(place - 1.2, -0.8)
    axis.set_xlim(0, 1.12 * max([1.0, *(ratio for _, group in panel for _, ratio in group)]))
    axis.set_title(heading, loc="left", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="y", length=0)


def _add_legend(figure: Figure, axes: Iterable[Axes]) -> None:
    """Draws one legend for all panels whose groups have more than one bar."""
    handles: dict[str, Artist] = {}
    for axis in axes:
        found, names = axis.get_legend_handles_labels()
        if len(set(names)) > 1:
            handles |= dict(zip(names, found, strict=True))
    if handles:
        figure.legend(handles.values(), handles.keys(), frameon=False, loc="outside lower center", ncols=len(handles))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    flags.out.write_text(svg([json.loads(path.read_text()) for path in flags.results]))


if __name__ == "__main__":
    main()
