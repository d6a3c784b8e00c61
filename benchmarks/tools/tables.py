"""Prints results as Markdown tables, so that no table is typed by hand.

python -m benchmarks.tools.tables benchmarks/results/model-b0.json benchmarks/results/job-b0.json
"""

import argparse
import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

OURS = {"model": "ours, packed", "job": "ours"}


def markdown(report: dict[str, Any]) -> str:
    """Returns the tables of one report.

    Raises:
        KeyError: The report's benchmark has no tables.
    """
    return TABLES[report["benchmark"]](report)


def model_tables(report: dict[str, Any]) -> str:
    """Returns a table for each allocator, with our milliseconds and how many times as fast as each peer ours is."""
    parts = []
    for allocator in _in_order(row["allocator"] for row in report["results"]):
        rows = [row for row in report["results"] if row["allocator"] == allocator]
        names = [name for name in _in_order(row["contender"] for row in rows) if name != OURS["model"]]
        lines = []
        for case, precision in _in_order((row["case"], row["precision"]) for row in rows):
            by_name = {row["contender"]: row for row in rows if (row["case"], row["precision"]) == (case, precision)}
            own = f"{by_name[OURS['model']]['ms_per_image']:.1f} ms"
            lines.append([case, precision, own, *(_times(by_name[name]["ours_times_as_fast"]) for name in names)])
        head = f"{report['variant'].upper()}, allocator {allocator}"
        parts.append(table([head, "precision", "ours, an image", *names], lines, numbers_from=2))
    return "\n".join([*parts, exactness_table(report)])


def exactness_table(report: dict[str, Any]) -> str:
    """Returns a table of each contender's largest error of a logit, and of its labels that differ.

    Both are differences from the plain network.
    """
    lines = []
    results = report["results"]
    for name, precision in _in_order((row["contender"], row["precision"]) for row in results):
        rows = [row for row in results if (row["contender"], row["precision"]) == (name, precision)]
        largest = max(row["largest_difference"] for row in rows)
        labels = sum(row["labels_that_differ"] for row in rows)
        of = sum(row["images"] for row in rows)
        lines.append([name, precision, f"{largest:.1e}", f"{labels} of {of}"])
    return table(["", "precision", "largest difference", "labels that differ"], lines, numbers_from=2)


def job_tables(report: dict[str, Any]) -> str:
    """Returns a table of each contender: rates, how many times as fast ours is, lost rows, and labels that differ."""
    lines = []
    for name, runs in report["runs"].items():
        times = report["ours_times_as_fast"][name]
        lines.append(
            [
                name,
                report["pixels"][name],
                f"{statistics.median(run['whole_images_per_s'] for run in runs):.1f}",
                _times(times["whole_images_per_s"]),
                f"{statistics.median(run['steady_images_per_s'] for run in runs):.1f}",
                _times(times["steady_images_per_s"]),
                f"{max(run['rows_lost'] for run in runs)}",
                f"{max(run['labels_that_differ'] for run in runs)}",
            ]
        )
    head = [
        f"{report['precision']}, {report['images']} images",
        "pixels",
        "images/s, whole run",
        "ours is",
        "images/s, steady",
        "ours is",
    ]
    return table([*head, "rows lost", "labels that differ"], lines, numbers_from=2)


def table(head: Sequence[str], lines: Iterable[Sequence[str]], *, numbers_from: int) -> str:
    """Returns a Markdown table; columns from number `numbers_from` on are aligned to the right."""
    rules = ["---" if column < numbers_from else "---:" for column in range(len(head))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, rules, *lines])


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}x"


def _in_order(values: Iterable[Any]) -> list[Any]:
    """Returns each value once, in the order of first occurrence."""
    return list(dict.fromkeys(values))


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {"model": model_tables, "job": job_tables}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=Path, nargs="+")
    flags = parser.parse_args()
    for path in flags.results:
        print(f"{path.name}\n\n{markdown(json.loads(path.read_text()))}")


if __name__ == "__main__":
    main()
