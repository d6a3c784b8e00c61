"""Keeps a labelled data set current: labels new or changed images, sorts, applies corrections, reports changes.

    python jobs/label_dataset.py --input s3://bucket/photos --weights s3://bucket/pvt_v2_b0 --output s3://bucket/labels

The command may start at any time, twice, or late. If there is nothing to do, the command ends in seconds. The data set
is one file, <output>/dataset/labels.parquet. The last line of stdout is the run's summary as JSON; logs go to stderr.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

# Python puts the folder of a script on the path of modules, but not the folder that holds the packages.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.cli.command import configure_logging, run_and_notify, run_command
from jobs.cli.flags import input_config, job_config, make_parser
from jobs.cli.label_flags import add_label_flags, calibration_of, label_task
from jobs.cli.run_job import Upkeep, run_config
from pipeline.chunks.failures import TRANSIENT_CODES
from pipeline.dataset.accept import AcceptConfig, Accepting, choose_scores
from pipeline.dataset.drift import MAX_DRIFT
from pipeline.dataset.exports import EXPORTS, ExportConfig
from pipeline.dataset.policy import Policy, read_class_scores, read_classes
from pipeline.dataset.update import DatasetConfig
from pipeline.dataset.upkeep import check_dataset, class_names, keep_dataset
from pipeline.errors import ConfigError, PipelineError
from pipeline.evaluation.calibration import Calibration
from pipeline.run.ledger import Ledger
from pipeline.run.run import Run
from pipeline.run.stopper import Stopper
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri

_CLASSES_HELP = "YAML: the network's label: the data set's, null drops it; the name * stands for all others"
_OVERRIDES_HELP = (
    "file or folder of corrections, CSV or Parquet with image_id and label; repeatable; default: overrides.csv, "
    "overrides.parquet and overrides/ in the output"
)
_EXPORT_HELP = "also keep the data set in this form; repeatable"
_PRECISION_HELP = (
    "choose the scores so that this share of accepted labels is right, with 95 %% confidence; needs --calibration"
)
_SIDECARS_HELP = "folder for what imagefolder and webdataset exports write beside the images; default: beside them"
_DRIFT_HELP = (
    "exit 8 if new images differ from earlier ones by more, as a population stability index; default: %(default)g"
)


def label_dataset(arguments: Sequence[str], stopper: Stopper | None = None) -> dict[str, Any]:
    """Runs the job; returns its summary."""
    started_at = time.time()
    flags = _parser().parse_args(arguments)
    configure_logging(flags.log_level)
    return run_and_notify(flags, lambda stopper: _run(flags, started_at, stopper), stopper)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser((__doc__ or "").partition("\n")[0])
    add = parser.add_argument_group("data set").add_argument
    add("--accept-score", type=float, metavar="S", help=f"default: {Policy.accept_score:g}")
    add("--accept-precision", type=float, metavar="P", help=_PRECISION_HELP)
    add("--class-scores", metavar="FILE", help="YAML: label: the score that it needs instead")
    add("--classes", metavar="FILE", help=_CLASSES_HELP)
    add("--overrides", action="append", default=[], metavar="URI", help=_OVERRIDES_HELP)
    add("--export", action="append", default=[], choices=EXPORTS, help=_EXPORT_HELP)
    add("--sidecars-to", metavar="URI", help=_SIDECARS_HELP)
    add("--max-drift", type=float, default=MAX_DRIFT, metavar="PSI", help=_DRIFT_HELP)
    add_label_flags(parser)
    return parser


def _run(flags: argparse.Namespace, started_at: float, stopper: Stopper) -> dict[str, Any]:
    calibration = calibration_of(flags)
    config = job_config(flags, label_task(flags, calibration))
    if flags.retry_failed is None:
        config = replace(config, output=replace(config.output, retry_failed=TRANSIENT_CODES))
    dataset, exports = _dataset_config(flags), _export_config(flags)
    accept = _accept_config(flags, calibration)
    chosen: list[Accepting] = []

    def check(run: Run) -> None:
        check_dataset(run, dataset)
        if accept is not None:
            chosen.append(choose_scores(accept, dataset.policy, class_names(run)))

    def keep(run: Run, ledger: Ledger) -> tuple[dict[str, Any], list[PipelineError]]:
        policy = chosen[0].applied_to(dataset.policy) if chosen else dataset.policy
        kept = keep_dataset(run, ledger, replace(dataset, policy=policy), exports, stopper)
        summary: dict[str, Any] = {"dataset": kept.summary()}
        if chosen:
            summary["accept_precision"] = chosen[0].summary()
        if run.plan.is_empty and kept.is_changed:
            summary["message"] = "no new images; the data set was brought up to date"
        return summary, kept.errors()

    return run_config(config, started_at, stopper, Upkeep(check=check, keep=keep))


def _dataset_config(flags: argparse.Namespace) -> DatasetConfig:
    """Returns the settings of the data set, from the flags and from the files that the flags name."""
    store = input_config(flags).store
    scores: dict[str, float] = {}
    classes: dict[str, str | None] = {}
    drop_others = False
    if flags.class_scores:
        scores = read_class_scores(StorePath(canonical_uri(flags.class_scores), store))
    if flags.classes:
        classes, drop_others = read_classes(StorePath(canonical_uri(flags.classes), store))
    return DatasetConfig(
        policy=Policy(
            accept_score=Policy.accept_score if flags.accept_score is None else flags.accept_score,
            class_scores=scores,
            classes=classes,
            drop_others=drop_others,
        ),
        overrides=tuple(map(canonical_uri, flags.overrides)),
        max_drift=flags.max_drift,
    )


def _accept_config(flags: argparse.Namespace, calibration: Calibration | None) -> AcceptConfig | None:
    if flags.accept_precision is None:
        return None
    for flag in ("accept_score", "class_scores"):
        if getattr(flags, flag) is not None:
            raise ConfigError(f"--accept-precision chooses the scores: leave --{flag.replace('_', '-')} out")
    if calibration is None:
        raise ConfigError(
            "--accept-precision needs --calibration, a file that jobs/evaluate.py makes of labelled images"
        )
    return AcceptConfig(precision=flags.accept_precision, calibration=calibration)


def _export_config(flags: argparse.Namespace) -> ExportConfig:
    config = input_config(flags)
    return ExportConfig(
        names=tuple(dict.fromkeys(flags.export)),
        roots=config.uris,
        input_store=config.store,
        sidecars_to=canonical_uri(flags.sidecars_to) if flags.sidecars_to else None,
    )


if __name__ == "__main__":
    sys.exit(run_command(label_dataset, sys.argv[1:]))
