"""Charts as inline SVG, drawn by matplotlib. The page's style gives the colours, so that charts follow its dark mode.

No text of the data reaches matplotlib: the page shows names beside the chart, and an XML writer escapes the names in
tooltips. The sizes are chosen so that letters are 11 px high in a chart that is 370 px wide.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from pipeline.page.parts import Caption

NUM_SERIES = 6

# Placeholders for the style's variables, replaced in the finished SVG; nothing else has these colours.
_INK, _GRID = "#010203", "#010204"
_SERIES = tuple(f"#0102{0xA0 + index:02x}" for index in range(NUM_SERIES))
_VARIABLES = {
    _INK: "var(--muted)",
    _GRID: "var(--line)",
    **{color: f"var(--series-{index})" for index, color in enumerate(_SERIES)},
}
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pvtv2",
    "font.size": 8,
    "axes.labelsize": 8,
    "font.family": "DejaVu Sans",
    "text.parse_math": False,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "ytick.left": False,
}
_SIZE_IN = (3.7, 1.95)
_HREF = "{http://www.w3.org/1999/xlink}href"
_TIP = "tip-"


def steps_chart(
    caption: Caption,
    edges: Sequence[float],
    values: Sequence[float],
    *,
    x_label: str,
    top: float | None = None,
    color: int = 0,
) -> Markup:
    """Returns a chart of one quantity over time.

    Args:
        caption: Title and description of the chart.
        edges: Bounds of the buckets in time, one more than there are values.
        values: The quantity in each bucket.
        x_label: Label of the horizontal axis.
        top: Value that the vertical axis reaches at least; 1.0 makes the axis show percentages.
        color: Number of the colour, below `NUM_SERIES`.
    """

    def draw(axes: Axes) -> None:
        series = _SERIES[color]
        axes.stairs(values, edges, fill=True, color=series, alpha=0.22, linewidth=0)
        axes.stairs(values, edges, color=series, linewidth=1.4, baseline=None)
        axes.set_xlim(edges[0], edges[-1])
        axes.set_xlabel(x_label)
        _upward(axes, max([*values, top or 0.0]), shares=top == 1.0)

    return _svg(caption, draw, {})


def stacked_chart(
    caption: Caption, edges: Sequence[float], layers: Sequence[Sequence[float]], *, x_label: str, colors: Sequence[int]
) -> Markup:
    """Returns a chart of several quantities over time, stacked on each other."""

    def draw(axes: Axes) -> None:
        base = [0.0] * (len(edges) - 1)
        for layer, color in zip(layers, colors, strict=True):
            upper = [low + value for low, value in zip(base, layer, strict=True)]
            axes.stairs(upper, edges, baseline=base, fill=True, color=_SERIES[color], linewidth=0)
            base = upper
        axes.set_xlim(edges[0], edges[-1])
        axes.set_xlabel(x_label)
        _upward(axes, max(base, default=0.0))

    return _svg(caption, draw, {})


def bars_chart(
    caption: Caption,
    values: Sequence[float],
    ticks: Sequence[str],
    tips: Sequence[str],
    *,
    x_label: str,
    at_edges: bool = False,
    color: int = 0,
) -> Markup:
    """Returns a chart with one bar for each value.

    Args:
        caption: Title and description of the chart.
        values: Heights of the bars.
        ticks: Labels below the bars, or below the edges of the bars; a chart with many labels shows only some of them.
        tips: Texts of the bars' tooltips.
        x_label: Label of the horizontal axis.
        at_edges: True draws bars that touch, with ticks at the edges of the bars; there is one tick more than bars.
        color: Number of the colour, below `NUM_SERIES`.
    """

    def draw(axes: Axes) -> None:
        bars = axes.bar(range(len(values)), values, 0.94 if at_edges else 0.72, color=_SERIES[color])
        for index, bar in enumerate(bars):
            bar.set_gid(f"{_TIP}{index}")
        every = max(1, -(-len(ticks) // 12))
        places = [index - (0.5 if at_edges else 0.0) for index in range(len(ticks))]
        axes.set_xticks(places[::every], list(ticks[::every]))
        axes.set_xlim(-0.6, max(len(values), 3) - 0.4)
        axes.set_xlabel(x_label)
        _upward(axes, max(values, default=0.0))

    return _svg(caption, draw, {f"{_TIP}{index}": tip for index, tip in enumerate(tips)})


def points_chart(
    caption: Caption,
    points: Sequence[tuple[float, float, float, float]],
    tips: Sequence[str],
    *,
    x_label: str,
    marked: int | None = None,
) -> Markup:
    """Returns a chart of shares over a quantity, one numbered point with its interval for each entry.

    Args:
        caption: Title and description of the chart.
        points: The quantity (more than 0), the share, and the two ends of the share's interval.
        tips: Texts of the points' tooltips.
        x_label: Label of the horizontal axis, which is logarithmic.
        marked: Index of the point in another colour.
    """

    def draw(axes: Axes) -> None:
        for index, (x, share, low, high) in enumerate(points):
            series = _SERIES[1 if index == marked else 0]
            axes.plot([x, x], [low, high], color=series, linewidth=1.2, alpha=0.6)
            (point,) = axes.plot([x], [share], "o", color=series, markersize=5)
            point.set_gid(f"{_TIP}{index}")
            axes.annotate(str(index + 1), (x, share), (5, 4), textcoords="offset points", fontsize=8)
        axes.set_xscale("log")
        axes.set_xlabel(x_label)
        quantities = [x for x, *_ in points]
        axes.set_xlim(min(quantities) / 1.3, max(quantities) * 1.4)
        axes.set_xticks(_apart(quantities))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))

    return _svg(caption, draw, {f"{_TIP}{index}": tip for index, tip in enumerate(tips)})


def _apart(quantities: Sequence[float]) -> list[float]:
    """Returns ticks of a logarithmic axis at some quantities, far enough apart for their labels."""
    span = max(quantities) / min(quantities) * 1.8
    ticks: list[float] = []
    for tick in sorted({float(f"{x:.2g}") for x in quantities}):
        if not ticks or tick / ticks[-1] > span**0.14:
            ticks.append(tick)
    return ticks


def compact(value: float) -> str:
    """Returns a number as the label of an axis, such as 1.2 k."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def _upward(axes: Axes, largest: float, *, shares: bool = False) -> None:
    axes.set_ylim(0, (largest if largest > 0 else 1.0) * (1.0 if shares else 1.06))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %" if shares else compact(value)))


def _svg(caption: Caption, draw: Callable[[Axes], None], tips: Mapping[str, str]) -> Markup:
    body = io.StringIO()
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=_SIZE_IN, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        figure.savefig(body, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(body.getvalue())
    _tidy(root, caption, tips)
    # A line break with blanks around it stands only between the numbers of a path.
    text = re.sub(r"\s*\n\s*", "", ElementTree.tostring(root, encoding="unicode").replace(" \n", " "))
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    return Markup(text)


def _tidy(root: ElementTree.Element, caption: Caption, tips: Mapping[str, str]) -> None:
    """Reduces matplotlib's SVG to the parts that a page needs, and adds title, description and tooltips.

    Tags lose their namespaces, groups lose their ids, and all other ids become unique on the page.
    """
    renamed: dict[str, str] = {}
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        if _HREF in element.attrib:
            element.set("href", element.attrib.pop(_HREF))
        id = element.attrib.pop("id", None)
        if id is not None and id in tips:
            element.insert(0, _words("title", tips[id]))
        elif id is not None and element.tag != "g":
            renamed[id] = f"{caption.name}-{len(renamed)}"
            element.set("id", renamed[id])
    for element in root.iter():
        for key, value in element.attrib.items():
            for old, new in renamed.items():
                if value in (f"#{old}", f"url(#{old})"):
                    element.set(key, value.replace(old, new))
    for parent in root.iter():
        for child in [child for child in parent if child.tag in ("style", "metadata")]:
            parent.remove(child)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    ids = {tag: f"{caption.name}-{tag}" for tag in ("title", "desc")}
    root.attrib |= {"role": "img", "aria-labelledby": ids["title"], "aria-describedby": ids["desc"]}
    root.insert(0, _words("title", caption.title, ids["title"]))
    root.insert(1, _words("desc", caption.description, ids["desc"]))


def _words(tag: str, text: str, id: str | None = None) -> ElementTree.Element:
    element = ElementTree.Element(tag, {} if id is None else {"id": id})
    element.text = text
    return element
