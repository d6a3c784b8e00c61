"""What pages are made of: sections of charts, thumbnails and tables; tables of texts and figures; how odd data is read.

Whatever a report holds in place of what is expected, its readers here answer with a value of the right kind or with
none, so that a section is left out and the page is made all the same.
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
# Of no quantity of a run; sums and squares of less are finite.
_TOO_LARGE = 1e30
# Control characters and halves of surrogate pairs, which no page may hold.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_RUN_ID_TIME = re.compile(r"(\d{8}T\d{6})Z")


@dataclass(frozen=True, slots=True)
class Figure:
    """A number of a report, which the page shows shortened and holds exactly.

    Attributes:
        field: where the report has it, such as `run.ok` or `shards.0.images`.
        value: the number; None shows a dash.
    """

    field: str
    value: float | None
    kind: Kind = "count"


@dataclass(frozen=True, slots=True)
class Bar:
    """A share from 0 to 1 as a bar in a cell; says nothing that a figure beside it does not."""

    share: float


Cell = str | Figure | Bar


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells; the first of each row is its head.

    Attributes:
        folded: shown only when it is opened.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Caption:
    """What a chart shows, in words.

    Attributes:
        name: what the ids inside begin with, unlike any other chart's of the page.
    """

    name: str
    title: str
    description: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A picture, what it shows in words, and its numbers.

    Attributes:
        legend: names and numbers of the colours, where there are several.
        table: the numbers; None where a table of the section holds them.
    """

    caption: Caption
    svg: Markup
    legend: Sequence[tuple[str, int]] = ()
    table: Table | None = None


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A small picture of one image, and what is told of it.

    Attributes:
        uri: `data:`, with the picture in it.
        alt: what is told to those who do not see it.
        label: None where there is none.
        score: its value is None where there is none.
        name: short for the image's id.
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
        anchor: its id on the page.
        note: a sentence below the heading.
        advice: sentences of a list.
    """

    anchor: str
    title: str
    note: str = ""
    advice: Sequence[str] = ()
    charts: Sequence[Chart] = ()
    thumbnails: Sequence[Thumbnail] = ()
    tables: Sequence[Table] = ()


# ---- Odd data


def number(value: Any) -> float | None:
    """A number of a credible size as it is; None for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Not a number compares as false.
    return value if abs(value) < _TOO_LARGE else None


def mapping(value: Any) -> Mapping[str, Any]:
    """A mapping as it is; an empty one for all else."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: Any) -> Sequence[Any]:
    """A list as it is; an empty one for all else."""
    return value if isinstance(value, list | tuple) else ()


def at(tree: Any, field: str) -> Any:
    """What lies at a dotted path of keys; None if nothing does."""
    for key in field.split("."):
        tree = mapping(tree).get(key)
    return tree


def figure(tree: Any, field: str, kind: Kind = "count", *, prefix: str = "") -> Figure:
    """The number at a dotted path.

    Args:
        prefix: path of the tree itself.
    """
    return Figure(prefix + field, number(at(tree, field)), kind)


def text(value: Any) -> str:
    """A value as a line of text, not too long, without what no page may hold; not escaped yet."""
    if value is None:
        return "–"
    if isinstance(value, Mapping | list | tuple):
        value = json.dumps(value, default=str, ensure_ascii=False)
    clean = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(value)[: _MAX_TEXT + 1])
    return clean if len(clean) <= _MAX_TEXT else clean[:_MAX_TEXT] + "…"


def moment(value: Any, run_id: Any = None) -> datetime | None:
    """A time in UTC, of a datetime or ISO text; else the time that a run's id begins with."""
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
    """A number as people read it."""
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
    """Three digits or more, with separators of thousands."""
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
    """Bars of numbers beside one another, of which the largest is whole."""
    sizes = [max(value or 0.0, 0.0) for value in values]
    largest = max(sizes, default=0.0)
    return [Bar(size / largest if largest else 0.0) for size in sizes]
