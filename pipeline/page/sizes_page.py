"""`sizes.html`: the page that compares the sizes of an evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.page.charts import points_chart
from pipeline.page.page import render
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
    text,
)

_FLATTERED = (
    "The size was chosen on the images that judge it here, which flatters it: on other images of the same kind, expect "
    "a little less. The intervals cover 95 % for one size on its own."
)
_ACCURACY: tuple[tuple[str, str, Kind | None], ...] = (
    ("Top 1", "top1", "share"),
    ("95 % interval", "top1_interval", None),
    ("Top 5", "top5", "share"),
    ("Mean recall", "balanced", "share"),
    ("GMAC", "gmac", "rate"),
    ("Images/s of one actor", "images_per_s", "rate"),
)
_DIFFERENCE: tuple[tuple[str, str, Kind | None], ...] = (
    ("Top 1 less the best", "difference_to_best", "share"),
    ("95 % interval", "difference_interval", None),
    ("p (McNemar)", "p_against_best", "rate"),
)
_CALIBRATION: tuple[tuple[str, str, Kind | None], ...] = (
    ("Calibration error, all", "calibration_error", "share"),
    ("Temperature", "temperature", "rate"),
    ("Half: plain", "on_held_out_half.error_before", "share"),
    ("Half: calibrated", "on_held_out_half.error_after", "share"),
    ("Images of the half", "on_held_out_half.judged", "count"),
)


def sizes_page(comparison: Mapping[str, Any], place: str) -> str:
    """Returns the page.

    Args:
        comparison: Content of `sizes.json`; missing or invalid parts are left out.
        place: Folder of the evaluation, for the heading.
    """
    rows = sequence(at(comparison, "sizes"))
    best, chosen = at(comparison, "best"), at(comparison, "chosen")
    note = f"{number(at(comparison, 'images')) or 0:,.0f} labelled images that have an answer at every size."
    if chosen is not None:
        note += (
            f" Best: {text(best)}. Chosen, as the cheapest size that is not significantly worse than the best "
            f"(McNemar, 0.05): {text(chosen)}. Any job takes it with --size-from."
        )
    sections = [
        Section(
            anchor="accuracy",
            title="Accuracy and cost",
            note=note,
            advice=[_FLATTERED],
            charts=_charts(rows, chosen),
            tables=[
                _table("Accuracy of each size", rows, _ACCURACY),
                _table("Difference to the best size, on the same images", rows, _DIFFERENCE),
            ],
        ),
        Section(
            anchor="scores",
            title="Scores",
            note="Calibration error: how far scores are from the share of right labels, in the mean; 0 is right. One "
            "temperature was fitted on half of the images, and judged on the others.",
            tables=[
                _table(
                    "Calibration, and what a temperature does to it on the half that did not choose it",
                    rows,
                    _CALIBRATION,
                ),
                _accepted(rows),
            ],
        ),
    ]
    return render(
        {
            "title": f"Sizes compared, {place}",
            "kind": "sizes of an evaluation",
            "heading": f"{len(rows)} sizes compared",
            "status": None,
            "began": None,
            "reason": None,
            "problems": [],
            "headline": [
                ("Images", Figure("images", number(at(comparison, "images")))),
                ("Sizes", Figure("sizes", len(rows))),
                ("Best top 1", _of(rows, best, "top1", "share")),
                ("Chosen top 1", _of(rows, chosen, "top1", "share")),
                ("Best GMAC", _of(rows, best, "gmac", "rate")),
                ("Chosen GMAC", _of(rows, chosen, "gmac", "rate")),
            ],
            "sections": sections,
        }
    )


def _of(rows: Sequence[Any], name: Any, field: str, kind: Any) -> Figure:
    found = [(index, row) for index, row in enumerate(rows) if at(row, "size") == name and name is not None]
    if not found:
        return Figure(field, None, kind)
    index, row = found[0]
    return figure(row, field, kind, prefix=f"sizes.{index}.")


def _charts(rows: Sequence[Any], chosen: Any) -> list[Chart]:
    points: list[tuple[float, float, float, float]] = []
    tips: list[str] = []
    marked = None
    for row in rows:
        values = [number(at(row, "gmac")), number(at(row, "top1")), *map(number, sequence(at(row, "top1_interval")))]
        known = [value for value in values if value is not None]
        if len(known) != 4 or known[0] <= 0:
            return []
        marked = len(points) if at(row, "size") == chosen else marked
        points.append((known[0], known[1], known[2], known[3]))
        tips.append(f"{text(at(row, 'size'))}: {100 * known[1]:.1f} % at {known[0]:.2f} GMAC")
    if not points:
        return []
    caption = Caption(
        "sizes-accuracy",
        "Top-1 accuracy over cost",
        "One point for each size, numbered as in the table, with its 95 % interval; the chosen size in another colour.",
    )
    svg = points_chart(caption, points, tips, x_label="GMAC an image", marked=marked)
    return [Chart(caption=caption, svg=svg, legend=[("a size", 0), ("the chosen size", 1)])]


def _interval(value: Any, digits: str = ".1f") -> str:
    bounds = [number(bound) for bound in sequence(value)]
    if len(bounds) != 2 or bounds[0] is None or bounds[1] is None:
        return "–"
    return f"{100 * bounds[0]:{digits}} to {100 * bounds[1]:{digits}} %"


def _table(caption: str, rows: Sequence[Any], columns: Sequence[tuple[str, str, Kind | None]]) -> Table:
    """Returns a table with a line for each size.

    Args:
        columns: Head, field and kind of each column behind the size; an interval has no kind.
    """
    cells: list[list[Cell]] = [
        [
            f"{index + 1}. {text(at(row, 'size'))}",
            *(
                _interval(at(row, field)) if kind is None else figure(row, field, kind, prefix=f"sizes.{index}.")
                for _, field, kind in columns
            ),
        ]
        for index, row in enumerate(rows)
    ]
    return Table(caption=caption, head=("Size", *(head for head, *_ in columns)), rows=cells)


def _accepted(rows: Sequence[Any]) -> Table:
    precisions = list(mapping(at(rows[0], "accepted_at_precision"))) if rows else []
    cells: list[list[Cell]] = [
        [
            f"{index + 1}. {text(at(row, 'size'))}",
            *(
                # The name of a precision has a dot, which would part a path.
                Figure(
                    f"sizes.{index}.accepted_at_precision.{name}",
                    number(mapping(at(row, "accepted_at_precision")).get(name)),
                    "share",
                )
                for name in precisions
            ),
        ]
        for index, row in enumerate(rows)
    ]
    head = ("Size", *(f"at {text(name)}" for name in precisions))
    caption = "Share of images that one least plain score accepts, so that this share of them is right"
    return Table(caption=caption, head=head, rows=cells)
