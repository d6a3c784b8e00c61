"""`sizes.html`: the page that compares the sizes of an evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.page.charts import points_chart
from pipeline.page.page import render
from pipeline.page.parts import Caption, Cell, Chart, Figure, Section, Table, at, figure, number, sequence, text

_FLATTERED = (
    "The size was chosen on the images that judge it here, which flatters it: on other images of the same kind, expect "
    "a little less. The intervals cover 95 % for one size on its own."
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
            tables=[_accuracy(rows), _difference(rows)],
        ),
        Section(
            anchor="scores",
            title="Scores",
            note="Calibration error: how far scores are from the share of right labels, in the mean; 0 is right. One "
            "temperature was fitted on half of the images, and judged on the others.",
            tables=[_calibration(rows), _accepted(rows)],
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


def _named(index: int, row: Any) -> str:
    return f"{index + 1}. {text(at(row, 'size'))}"


def _interval(value: Any, digits: str = ".1f") -> str:
    bounds = [number(bound) for bound in sequence(value)]
    if len(bounds) != 2 or bounds[0] is None or bounds[1] is None:
        return "–"
    return f"{100 * bounds[0]:{digits}} to {100 * bounds[1]:{digits}} %"


def _accuracy(rows: Sequence[Any]) -> Table:
    cells: list[list[Cell]] = [
        [
            _named(index, row),
            figure(row, "top1", "share", prefix=f"sizes.{index}."),
            _interval(at(row, "top1_interval")),
            figure(row, "top5", "share", prefix=f"sizes.{index}."),
            figure(row, "balanced", "share", prefix=f"sizes.{index}."),
            figure(row, "gmac", "rate", prefix=f"sizes.{index}."),
            figure(row, "images_per_s", "rate", prefix=f"sizes.{index}."),
        ]
        for index, row in enumerate(rows)
    ]
    head = ("Size", "Top 1", "95 % interval", "Top 5", "Mean recall", "GMAC", "Images/s of one actor")
    return Table(caption="Accuracy of each size", head=head, rows=cells)


def _difference(rows: Sequence[Any]) -> Table:
    cells: list[list[Cell]] = [
        [
            _named(index, row),
            figure(row, "difference_to_best", "share", prefix=f"sizes.{index}."),
            _interval(at(row, "difference_interval")),
            figure(row, "p_against_best", "rate", prefix=f"sizes.{index}."),
        ]
        for index, row in enumerate(rows)
    ]
    head = ("Size", "Top 1 less the best", "95 % interval", "p (McNemar)")
    return Table(caption="Difference to the best size, on the same images", head=head, rows=cells)


def _calibration(rows: Sequence[Any]) -> Table:
    cells: list[list[Cell]] = [
        [
            _named(index, row),
            figure(row, "calibration_error", "share", prefix=f"sizes.{index}."),
            figure(row, "temperature", "rate", prefix=f"sizes.{index}."),
            figure(row, "on_held_out_half.error_before", "share", prefix=f"sizes.{index}."),
            figure(row, "on_held_out_half.error_after", "share", prefix=f"sizes.{index}."),
            figure(row, "on_held_out_half.judged", prefix=f"sizes.{index}."),
        ]
        for index, row in enumerate(rows)
    ]
    head = ("Size", "Calibration error, all", "Temperature", "Half: plain", "Half: calibrated", "Images of the half")
    caption = "Calibration, and what a temperature does to it on the half that did not choose it"
    return Table(caption=caption, head=head, rows=cells)


def _accepted(rows: Sequence[Any]) -> Table:
    precisions = list(at(rows[0], "accepted_at_precision") or ()) if rows else []
    cells: list[list[Cell]] = [
        [
            _named(index, row),
            *(
                Figure(
                    f"sizes.{index}.accepted_at_precision.{name}",
                    number((at(row, "accepted_at_precision") or {}).get(name)),
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
