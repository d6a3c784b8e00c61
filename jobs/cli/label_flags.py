"""The flags of jobs that give labels, and the task that is made from these flags."""

import argparse

from jobs.cli.flags import output_store
from pipeline.chunks.size_policy import policy_from
from pipeline.chunks.task import Classify, ScoreScaling
from pipeline.errors import ConfigError
from pipeline.evaluation.calibration import Calibration, read_calibration
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri

_CALIBRATION_HELP = (
    "scores that say how often labels are right: calibration/<size>.parquet of an evaluation of these weights at this "
    "size; default: plain softmax scores"
)


def add_label_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags to a parser."""
    add = parser.add_argument_group("labels").add_argument
    add("--labels", metavar="FILE", help="names of the classes, one a line or JSON; default: the checkpoint's")
    add("--top-k", type=int, default=Classify.top_k, metavar="K", help="default: %(default)s")
    add("--calibration", metavar="FILE", help=_CALIBRATION_HELP)


def calibration_of(flags: argparse.Namespace) -> Calibration | None:
    """Reads the calibration that the flags name, with the account of the output; returns None if they name none.

    Raises:
        ConfigError: The file cannot be read, or is no calibration.
    """
    if flags.calibration is None:
        return None
    return read_calibration(StorePath(canonical_uri(flags.calibration), output_store(flags)))


def label_task(flags: argparse.Namespace, calibration: Calibration | None) -> Classify:
    """Returns the task; its values are checked.

    Raises:
        ConfigError: A value cannot work.
    """
    scaling = None
    if calibration is not None:
        try:
            policy = policy_from(calibration.sizes)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"--calibration {flags.calibration} names no size: {error}") from error
        scaling = ScoreScaling(
            temperature=calibration.temperature,
            weights_sha256=calibration.weights_sha256,
            size=calibration.size,
            policy=policy,
        )
    return Classify(labels=flags.labels, top_k=flags.top_k, scaling=scaling)
