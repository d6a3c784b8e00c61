"""The sections about the distribution of a run's images over sizes, labels and scores."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.page.charts import bars_chart
from pipeline.page.parts import (
    Caption,
    Cell,
    Chart,
    Figure,
    Kind,
    Section,
    Table,
    at,
    figure,
    mapping,
    number,
    sequence,
    shares,
    text,
)  # fmt: skip

_SHOWN_LABELS = 20


def sizes_section(report: Mapping[str, Any]) -> Section | None:
    """Returns the section of image sizes: images and seconds of the network in each band of sizes.

    The size of an image is the square root of the number of pixels that the network saw. If these sizes are far from
    the size in training, the section begins with the advice of the run.
    """
    bands = [mapping(band) for band in sequence(at(report, "sizes"))]
    bands = [band for band in bands if number(at(band, "images")) is not None]
    if not bands:
        return None
    names = [_band(band) for band in bands]
    charts = []
    for key, title, color in (("images", "Images by size", 0), ("compute_s", "Seconds in the network by size", 1)):
        values = [max(number(at(band, key)) or 0.0, 0.0) for band in bands]
        if any(values):
            tips = [f"{name}: {value:,}" for name, value in zip(names, values, strict=True)]
            most = names[values.index(max(values))]
            caption = Caption(f"sizes-{key}", title, f"{title}, in {len(bands)} bands; most are {most}.")
            ticks = [f"{number(at(band, 'from_px')) or 0:g}" for band in bands]
            label = "square root of the pixels, from px"
            svg = bars_chart(caption, values, ticks, tips, x_label=label, color=color)
            charts.append(Chart(caption=caption, svg=svg))
    wanted: tuple[tuple[str, Kind], ...] = (
        ("images", "count"), ("pixels", "large"), ("macs", "large"), ("compute_s", "seconds"),
    )  # fmt: skip
    rows: list[list[Cell]] = [
        [name, *(figure(band, key, kind, prefix=f"sizes.{index}.") for key, kind in wanted)]
        for index, (name, band) in enumerate(zip(names, bands, strict=True))
    ]
    head = ("Square root of the pixels", "Images", "Pixels", "MACs", "In the network")
    table = Table(caption="Sizes as numbers", head=head, rows=rows, folded=bool(charts))
    advice = at(report, "size_check.advice")
    return Section(
        anchor="sizes",
        title="Image sizes",
        advice=[] if advice is None else [text(advice)],
        charts=charts,
        tables=[table],
    )


def labels_section(report: Mapping[str, Any]) -> Section | None:
    """Returns the section of the number of images by label."""
    found = [mapping(entry) for entry in sequence(at(report, "labels"))]
    if not found:
        return None
    cells = [figure(entry, "images", prefix=f"labels.{index}.") for index, entry in enumerate(found)]
    named = [None if at(entry, "label") is None else cell.value for entry, cell in zip(found, cells, strict=True)]
    # The row of all other labels has no bar: it often is by far the largest, and would make the other bars short.
    rows: list[list[Cell]] = [
        ["all others" if at(entry, "label") is None else text(at(entry, "label")), cell, bar]
        for entry, cell, bar in zip(found, cells, shares(named), strict=True)
    ]
    head = ("Label", "Images", "")
    tables = [Table(caption="Labels, the most frequent first", head=head, rows=rows[:_SHOWN_LABELS])]
    if len(rows) > _SHOWN_LABELS:
        tables.append(Table(caption="More labels", head=head, rows=rows[_SHOWN_LABELS:], folded=True))
    return Section(anchor="labels", title="Labels", tables=tables)


def scores_section(report: Mapping[str, Any]) -> Section | None:
    """Returns the section of the number of images by score of the best class."""
    edges = [number(edge) for edge in sequence(at(report, "scores.edges"))]
    images = [number(count) for count in sequence(at(report, "scores.images"))]
    if not images or len(edges) != len(images) + 1 or None in edges:
        return None
    names = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges)]
    values = [max(count or 0.0, 0.0) for count in images]
    rows: list[list[Cell]] = [
        [name, Figure(f"scores.images.{index}", count)]
        for index, (name, count) in enumerate(zip(names, images, strict=True))
    ]
    tips = [f"{name}: {value:,}" for name, value in zip(names, values, strict=True)]
    caption = Caption("scores-images", "Images by score", _describe_scores(names, values))
    ticks = [f"{edge:g}" for edge in edges]
    svg = bars_chart(caption, values, ticks, tips, x_label="score of the best class", at_edges=True)
    table = Table(caption="Scores as numbers", head=("Score", "Images"), rows=rows, folded=True)
    return Section(anchor="scores", title="Scores", charts=[Chart(caption=caption, svg=svg, table=table)])


def _describe_scores(names: Sequence[str], values: Sequence[float]) -> str:
    return f"The softmax of the best class, in {len(names)} bins; most images have {names[values.index(max(values))]}."


def _band(band: Mapping[str, Any]) -> str:
    low, high = number(at(band, "from_px")), number(at(band, "to_px"))
    if high is None:
        return f"{low or 0:,g} px and more"
    return f"{low or 0:,g} to {high:,g} px"
