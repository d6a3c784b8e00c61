"""Evaluates a PVTv2 on labelled images: accuracy, calibration and confusion, overall, by class and by image size.

    python jobs/evaluate.py --predictions s3://bucket/labels
    python jobs/evaluate.py --input s3://bucket/val --weights s3://bucket/b0 --output s3://bucket/eval --sweep

The first command reads an output of `jobs/classify.py`. The second command classifies the images first, at several
sizes, compares the sizes and chooses one. `--preprocess both` compares the native size with the published protocol.
Each size has a folder of `--output`, and a repeated start continues where the last start was stopped. The last line of
stdout is the summary as JSON; logs go to stderr.
"""

import argparse
import csv
import io
import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

# Python puts the folder of a script on the path of modules, but not the folder that holds the packages.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.cli.command import configure_logging, run_and_notify, run_command
from jobs.cli.compared_sizes import comparison_table, named_sizes
from jobs.cli.flags import make_parser, output_place
from jobs.cli.run_job import run_config
from pipeline.errors import ConfigError, InputError, OutputError
from pipeline.evaluation.evaluation import COLUMNS, Tally, describe, tally
from pipeline.evaluation.predictions import Predictions, open_predictions
from pipeline.evaluation.true_labels import KINDS, understand
from pipeline.run.stopper import Stopper
from pipeline.store.errors import StoreError
from pipeline.store.store_path import StorePath
from pipeline.sweep.fill import fill_from_pass
from pipeline.sweep.judge import judge_sizes
from pipeline.sweep.passes import Sweep, plan_sweep

POLICIES = ("native", "imagenet")
EVALUATION_FILE, CLASSES_FILE, CONFUSION_FILE = "evaluation.json", "classes.csv", "confusion.csv"

_SOURCES = "inputs bring them as .cls sidecars, a label column, or the names of class folders"
_KINDS = {kind.lower().replace(" ", "-"): kind for kind in KINDS}
_CLASS_NUMBERS = (
    "the true labels are numbers from Parquet files, and may count the classes of these files instead of the network's "
    "(outputs that are begun now hold the names that the files give)"
)
_SWEEP_HELP = (
    "compare these sizes (forms of --size) on the same images, and choose one; without a list: native, checkpoint, and "
    "squares and whole images from the size in training up to 1.75 times of it"
)
_REPORT_HELP = "folder for evaluation.json, classes.csv, confusion.csv, and what --sweep writes; default: --output"
_WAY_OUT = f"say what the true labels are with --true-labels {'|'.join(_KINDS)}, or classify into a new --output"
_NAMES = "classify with --labels, a file that names the network's classes as the data does"


def evaluate(arguments: Sequence[str], stopper: Stopper | None = None) -> dict[str, Any]:
    """Runs the job; returns its summary."""
    started_at = time.time()
    parser = make_parser((__doc__ or "").partition("\n")[0], required=False, policies=(*POLICIES, "both"))
    add = parser.add_argument_group("evaluation").add_argument
    add("--sweep", nargs="?", const="", metavar="SIZE,SIZE", help=_SWEEP_HELP)
    add("--predictions", action="append", default=[], metavar="URI", help="output of jobs/classify.py; repeatable")
    add("--labels", metavar="FILE", help="names of the classes, one a line or JSON; default: the checkpoint's")
    add("--true-labels", choices=_KINDS, help="what the true labels are; default: found, refused if that is in doubt")
    add("--report", metavar="URI", help=_REPORT_HELP)
    flags = parser.parse_args(arguments)
    configure_logging(flags.log_level)
    return run_and_notify(flags, lambda stopper: _run(flags, started_at, stopper), stopper)


def _run(flags: argparse.Namespace, started_at: float, stopper: Stopper) -> dict[str, Any]:
    _check(flags)
    kind = _KINDS.get(flags.true_labels)
    text = flags.report or flags.output
    folder = None if text is None else output_place(text, flags)
    if flags.predictions:
        with stopper.armed():
            outputs = [open_predictions(output_place(text, flags)) for text in flags.predictions]
            return _judged([_evaluate(found, kind, None) for found in outputs], None, folder, started_at)
    with stopper.armed():
        base, named = named_sizes(flags)
        sweep = plan_sweep(base, named, output_place(flags.output, flags))
    stopped = _classify(sweep, started_at, stopper)
    if stopped is not None:
        return stopped
    with stopper.armed():
        opened = [(open_predictions(size.config.output.folder), size.name) for size in sweep.sizes]
        evaluations = [_evaluate(found, kind, name) for found, name in opened]
        comparison = judge_sizes(sweep, [found for found, _ in opened], evaluations[0]["truth"], folder)
        return _judged(evaluations, comparison, folder, started_at)


def _check(flags: argparse.Namespace) -> None:
    given = [flag for flag in ("input", "weights", "output") if getattr(flags, flag)]
    if flags.predictions and (given or flags.sweep is not None):
        raise ConfigError(f"--predictions are there already: leave --{[*given, 'sweep'][0]} out")
    if not flags.predictions and len(given) < 3:
        raise ConfigError("give --predictions, or --input, --weights and --output; see --help")
    for flag in ("dry_run", "calibrate"):
        if getattr(flags, flag):
            raise ConfigError(f"--{flag.replace('_', '-')}: an evaluation has no plan; use it with jobs/classify.py")
    if flags.size_from is not None:
        raise ConfigError("--size-from: an evaluation chooses a size; give --sweep, or --size to evaluate one")
    if flags.preprocess != "native" and flags.size not in (None, "native"):
        raise ConfigError(f"--size {flags.size} and --preprocess {flags.preprocess} contradict each other; give one")
    if flags.sweep is not None and (flags.preprocess != "native" or flags.size is not None):
        raise ConfigError("--sweep names all sizes: leave --size and --preprocess out")


def _classify(sweep: Sweep, started_at: float, stopper: Stopper) -> dict[str, Any] | None:
    """Does the passes of a sweep and makes the output of each size.

    Returns:
        The summary of a run that ended early; None if all is done.
    """
    for config in sweep.passes:
        with stopper.armed():
            summary = run_config(config, started_at, stopper)
        if summary["exit_code"]:
            return summary
    for size in sweep.sizes:
        fill = None if size.place is None else partial(fill_from_pass, place=size.place)
        with stopper.armed():
            summary = run_config(size.config, started_at, stopper, fill=fill)
        if summary["exit_code"]:
            return summary
    return None


def _judged(
    evaluations: list[dict[str, Any]], comparison: dict[str, Any] | None, folder: StorePath | None, started_at: float
) -> dict[str, Any]:
    """Prints the tables and writes the files of an evaluation; returns the summary."""
    print(_table(evaluations))
    if comparison is not None and len(comparison["sizes"]) > 1:
        print(f"\n{comparison_table(comparison)}")
    if folder is not None:
        _write(folder, evaluations)
    return _summary(evaluations, comparison, folder, started_at)


def _evaluate(predictions: Predictions, kind: str | None, name: str | None) -> dict[str, Any]:
    """Returns the evaluation of some predictions, with the whole confusion matrix under `confusion`.

    Args:
        predictions: output of a classification.
        kind: kind of the true labels; None finds the kind.
        name: name of the size; None takes the name that the output's identity gives.

    Raises:
        ConfigError: the kind of the true labels is in doubt.
        InputError: no row has a true label that is a class of the network.
    """
    true_labels, from_parquet = predictions.true_labels()
    if not true_labels:
        raise InputError(f"{predictions.output.shown} has no true labels; {_SOURCES}")
    truth = understand(true_labels, predictions.labels, predictions.num_classes, kind)
    if not truth.classes:
        few = ", ".join(truth.unknown[:5])
        raise InputError(f"none of the true labels ({few}) is a class of the network; {_NAMES}")
    doubt = truth.doubt
    if kind is None and truth.by == "numbers" and predictions.has_class_numbers and from_parquet & truth.classes.keys():
        doubt = doubt or _CLASS_NUMBERS
    if doubt is not None:
        raise ConfigError(f"{predictions.output.shown}: {doubt}; {_WAY_OUT}")
    total = sum((tally(table, truth) for table in predictions.tables(COLUMNS)), Tally())
    return {
        "predictions": predictions.output.shown,
        "preprocess": name or predictions.policy,
        **describe(total, truth, predictions.labels, predictions.top_k),
        "confusion": sorted((*pair, count) for pair, count in total.confusion.items()),
        "labels": predictions.labels,
        "truth": truth,
    }


def _write(folder: StorePath, evaluations: list[dict[str, Any]]) -> None:
    """Writes the evaluations as JSON, and the figures of their classes and their confusion matrices as CSV."""
    classes, confusion = io.StringIO(), io.StringIO()
    rows, pairs = csv.writer(classes), csv.writer(confusion)
    names = list(evaluations[0]["classes"][0])
    rows.writerow(["preprocess", "predictions", *names])
    pairs.writerow(["preprocess", "predictions", "true_id", "true_label", "predicted_id", "predicted_label", "images"])
    for found in evaluations:
        where = [found["preprocess"], found["predictions"]]
        rows.writerows([*where, *(row[name] for name in names)] for row in found["classes"])
        labels = found["labels"]
        for true, predicted, count in found["confusion"]:
            texts = (labels[true], labels[predicted]) if labels else ("", "")
            pairs.writerow([*where, true, texts[0], predicted, texts[1], count])
    kept = [{key: found[key] for key in found if key not in ("confusion", "labels", "truth")} for found in evaluations]
    bodies = {
        EVALUATION_FILE: json.dumps(kept, indent=1),
        CLASSES_FILE: classes.getvalue(),
        CONFUSION_FILE: confusion.getvalue(),
    }
    try:
        for name, body in bodies.items():
            folder.join(name).put(body.encode())
    except StoreError as error:
        raise OutputError(f"{folder} cannot be written: {error}") from error


def _table(evaluations: list[dict[str, Any]]) -> str:
    """Returns a table of the evaluations, side by side, as text."""
    lines = [("", *(found["preprocess"] for found in evaluations))]
    lines.append(("true labels are", *(found["true_labels_are"] for found in evaluations)))
    for name in ("evaluated", "failed", "unlabelled", "unknown"):
        lines.append((name, *(f"{found[name]:,}" for found in evaluations)))
    for name in evaluations[0]["accuracy"]:
        lines.append((name, *(_percent(found["accuracy"].get(name)) for found in evaluations)))
    lines.append(("calibration error", *(_percent(found["calibration_error"]) for found in evaluations)))
    for index, band in enumerate(evaluations[0]["bands"]):
        low, end = band["shorter_side_px"]
        bands = [found["bands"][index] for found in evaluations]
        if any(each["images"] for each in bands):
            name = f"top1, shorter side {low}-{end - 1} px" if end else f"top1, shorter side {low} px and more"
            lines.append((name, *(f"{_percent(each['top1'])} of {each['images']:,}" for each in bands)))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _summary(
    evaluations: list[dict[str, Any]], comparison: dict[str, Any] | None, folder: StorePath | None, started_at: float
) -> dict[str, Any]:
    kept = (
        "predictions",
        "preprocess",
        "evaluated",
        "failed",
        "unlabelled",
        "unknown",
        "true_labels_are",
        "accuracy",
        "calibration_error",
    )
    return {
        "status": "done",
        "evaluations": [{name: found[name] for name in kept} for found in evaluations],
        **({} if comparison is None else {"best_size": comparison["best"], "chosen_size": comparison["chosen"]}),
        "report": None if folder is None else folder.join(EVALUATION_FILE).shown,
        "seconds": round(time.time() - started_at, 1),
        "exit_code": 0,
    }


if __name__ == "__main__":
    sys.exit(run_command(evaluate, sys.argv[1:]))
