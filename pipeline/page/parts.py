"""The parts of a page, and readers of reports that accept any data.

A page has sections of charts, thumbnails and tables; tables have cells of text, figures and bars. If a report holds
something unexpected, a reader returns an empty value of the right type or None. The section is then left out, and the
rest of the page is still made.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from markupsafe import Markup

Kind = Literal["count", "rate", "seconds", "bytes", "large", "share", "plain", "setting"]

_MAX_TEXT = 600
# Every quantity of a run is smaller. Sums and squares of smaller numbers are finite.
_TOO_LARGE = 1e30
# Control characters and halves of surrogate pairs, which HTML forbids.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_RUN_ID_TIME = re.compile(r"(\d{8}T\d{6})Z")


@dataclass(frozen=True, slots=True)
class Figure:
    """A number of a report; the page shows the number shortened, and holds the exact number in an attribute.

    Attributes:
        field: Path of the number in the report, such as `run.ok` or `shards.0.images`.
        value: The number; None is shown as a dash.
        kind: Kind of the quantity, which decides how the number is shortened.
    """

    field: str
    value: float | None
    kind: Kind = "count"


@dataclass(frozen=True, slots=True)
class Bar:
    """A share from 0 to 1, shown as a bar beside the figure of the same quantity."""

    share: float


Cell = str | Figure | Bar


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; the first cell of each row is the row's head.

    Attributes:
        folded: True if readers must unfold the table to see it.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Caption:
    """The title and the description of a chart.

    Attributes:
        name: Prefix of the ids inside the chart; unique on the page.
    """

    name: str
    title: str
    description: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart with its caption, its legend and its numbers.

    Attributes:
        legend: Name and number of each colour; empty for a chart of one colour.
        table: Table of the chart's numbers; None if another table of the section holds them.
    """

    caption: Caption
    svg: Markup
    legend: Sequence[tuple[str, int]] = ()
    table: Table | None = None


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A thumbnail of one image, with its label and score.

    Attributes:
        uri: A `data:` URI that holds the JPEG.
        alt: Alternative text for readers who do not see the image.
        label: Label of the image; None for an image without a label.
        score: Score of the label; the value of the figure is None for an image without a score.
        name: Shortened id of the image.
    """

    uri: str
    alt: str
    label: str | None
    score: Figure
    name: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page with a heading of its own.

    Attributes:
        anchor: Id of the section on the page.
        note: Sentence below the heading.
        advice: Sentences that are shown as a list.
    """

    anchor: str
    title: str
    note: str = ""
    advice: Sequence[str] = ()
    charts: Sequence[Chart] = ()
    thumbnails: Sequence[Thumbnail] = ()
    tables: Sequence[Table] = ()


# ---- Readers of reports


def number(value: Any) -> float | None:
    """Returns the value if it is a number between -1e30 and 1e30, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # The comparison is False for NaN.
    return value if abs(value) < _TOO_LARGE else None


def mapping(value: Any) -> Mapping[str, Any]:
    """Returns the value if it is a mapping, else an empty mapping."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: Any) -> Sequence[Any]:
    """Returns the value if it is a list or a tuple, else an empty tuple."""
    return value if isinstance(value, list | tuple) else ()


def at(tree: Any, field: str) -> Any:
    """Returns the value at a dotted path of keys; None if a key is missing."""
    for key in field.split("."):
        tree = mapping(tree).get(key)
    return tree


def figure(tree: Any, field: str, kind: Kind = "count", *, prefix: str = "") -> Figure:
    """Returns the number at a dotted path as a figure.

    Args:
        prefix: Path from the report to `tree`, which is a part of the report, with a dot at the end of the path.
    """
    return Figure(prefix + field, number(at(tree, field)), kind)


def text(value: Any) -> str:
    """Returns a value as text of bounded length without forbidden characters; the text is not escaped."""
    if value is None:
        return "–"
    if isinstance(value, Mapping | list | tuple):
        value = json.dumps(value, default=str, ensure_ascii=False)
    clean = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(value)[: _MAX_TEXT + 1])
    return clean if len(clean) <= _MAX_TEXT else clean[:_MAX_TEXT] + "…"


def moment(value: Any, run_id: Any = None) -> datetime | None:
    """Returns a datetime or an ISO text as a time in UTC; None if the value gives no time.

    If the value is neither a datetime nor an ISO text, the time at the start of `run_id` is returned, if there is one.
    """
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        match = _RUN_ID_TIME.match(run_id) if isinstance(run_id, str) else None
        return None if match is None else moment(_iso(match[1]))


def _iso(compact: str) -> str | None:
    try:
        return datetime.strptime(compact, "%Y%m%dT%H%M%S").isoformat()
    except ValueError:
        return None


# ---- Figures as text


def shortened(value: float | None, kind: Kind) -> str:
    """Returns a number in a short form for readers."""
    if value is None:
        return "–"
    if kind == "count":
        return f"{value:,}" if isinstance(value, int) else _digits(value)
    if kind == "share":
        return f"{100 * value:.1f} %"
    if kind == "seconds":
        return _duration(value)
    if kind == "bytes":
        return _scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"))
    if kind == "large":
        return _scaled(value, 1000, ("", "thousand", "million", "billion", "trillion", "quadrillion"))
    return _digits(value) if kind == "rate" else f"{value:,}"


def _digits(value: float) -> str:
    """Returns a number as text: with three significant digits, or as a whole number with separators from 100 on."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:,.1f}" if size >= 10 else f"{value:.3g}"


def _scaled(value: float, step: int, units: Sequence[str]) -> str:
    power = 0
    while abs(value) >= step and power + 1 < len(units):
        value, power = value / step, power + 1
    return f"{_digits(value) if power else f'{value:,}'} {units[power]}".rstrip()


def _duration(seconds: float) -> str:
    if abs(seconds) < 60:
        return f"{_digits(seconds)} s"
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours:,} h {minutes:02} min" if hours else f"{minutes} min {left:02} s"


def shares(values: Iterable[float | None]) -> list[Bar]:
    """Returns a bar for each number; the bar of the largest number is full."""
    sizes = [max(value or 0.0, 0.0) for value in values]
    largest = max(sizes, default=0.0)
    return [Bar(size / largest if largest else 0.0) for size in sizes]
