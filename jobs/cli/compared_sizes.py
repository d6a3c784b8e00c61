"""The sizes that an evaluation compares: their names, from the flags, and the printed table."""

import argparse
from collections.abc import Mapping
from typing import Any

from jobs.cli.flags import job_config
from pipeline.chunks.task import Classify
from pipeline.config.job_config import JobConfig

_BOTH = ("native", "imagenet")


def named_sizes(flags: argparse.Namespace) -> tuple[JobConfig, list[tuple[str, JobConfig]]]:
    """Returns the settings of the job at the native size, and each size that the flags ask for with its settings.

    A sweep without a list has no sizes yet: they depend on the checkpoint.

    Raises:
        ConfigError: A size has no known form.
    """
    base = _config(flags, preprocess="native", size="native")
    if flags.sweep is not None:
        names = dict.fromkeys(name.strip() for name in flags.sweep.split(",") if name.strip())
        return base, [(name, _config(flags, preprocess="native", size=name)) for name in names]
    if flags.size not in (None, "native"):
        return base, [(flags.size, _config(flags))]
    policies = _BOTH if flags.preprocess == "both" else (flags.preprocess,)
    return base, [(policy, _config(flags, preprocess=policy)) for policy in policies]


def _config(flags: argparse.Namespace, **changed: str) -> JobConfig:
    return job_config(argparse.Namespace(**{**vars(flags), **changed}), Classify(labels=flags.labels))


def comparison_table(comparison: Mapping[str, Any]) -> str:
    """Returns the comparison of sizes as text: a line for each size, then the best and the chosen size."""
    head = ("size", "top1", "95 % interval", "top5", "balanced", "calib. error", "calibrated", "accepted at 95 %",
            "GMAC", "images/s", "to the best", "p")  # fmt: skip
    lines = [head]
    for row in comparison["sizes"]:
        held_out, interval = row["on_held_out_half"], row["top1_interval"]
        lines.append(
            (
                row["size"],
                _percent(row["top1"]),
                "-" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}",
                _percent(row["top5"]),
                _percent(row["balanced"]),
                _percent(row["calibration_error"]),
                _percent(held_out and held_out["error_after"]),
                _percent(row["accepted_at_precision"]["0.95"]),
                "-" if row["gmac"] is None else f"{row['gmac']:.2f}",
                "-" if row["images_per_s"] is None else f"{row['images_per_s']:.1f}",
                _points(row.get("difference_to_best")),
                "-" if "p_against_best" not in row else f"{row['p_against_best']:.3f}",
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    if comparison["chosen"] is not None:
        text.append(
            f"best: {comparison['best']}; chosen, the cheapest that is not significantly worse: {comparison['chosen']}"
        )
        text.append(
            f"Both are judged on the {comparison['images']:,} images that they were chosen on, which flatters them"
        )
    return "\n".join(text)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _points(difference: float | None) -> str:
    return "-" if difference is None else f"{100 * difference:+.1f}"
