"""Judges the sizes of a sweep: calibrates and compares them, and writes what the evaluation found."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from pipeline.config.evaluated_size import SIZES_FILE
from pipeline.errors import OutputError
from pipeline.evaluation.calibration import LEAST_IMAGES, Calibration, calibrate, sample
from pipeline.evaluation.outcomes import COLUMNS, Outcomes, outcomes
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.true_labels import Truth
from pipeline.page.sizes_page import sizes_page
from pipeline.store.errors import StoreError
from pipeline.store.store_path import StorePath
from pipeline.sweep.answers import Answers, read_answers
from pipeline.sweep.compare import Measured, compare, on_common_images, sizes_file
from pipeline.sweep.passes import Sweep, SweptSize, folder_name

logger = logging.getLogger(__name__)

CALIBRATION = "calibration"
PAGE_FILE = "sizes.html"
MOST_CALIBRATED = 100_000
"""The most images whose logits are held in memory, and which a calibration holds."""


def judge_sizes(
    sweep: Sweep, predictions: Sequence[Predictions], truth: Truth, folder: StorePath | None
) -> dict[str, Any]:
    """Returns the comparison of the sizes (`pipeline.sweep.compare`); writes calibrations, `sizes.json` and the page.

    Args:
        predictions: Output of each size, in the order of the sweep.
        truth: Classes of the true labels.
        folder: Folder of the evaluation; None writes nothing.

    Raises:
        InputError: An output or a pass cannot be read.
        OutputError: The folder cannot be written.
    """
    found = on_common_images([outcomes(each.tables(COLUMNS), truth) for each in predictions])
    measured = []
    for size, each, answer in zip(sweep.sizes, predictions, found, strict=True):
        some = answer.take(sample(answer.image_id, MOST_CALIBRATED))
        answers = _answers(size, some, each.num_classes)
        calibration = None if answers is None else _calibration(sweep, size, some, answers, truth)
        if calibration is not None and folder is not None:
            _put(folder.join(CALIBRATION, f"{folder_name(size.name)}.parquet"), calibration.to_parquet())
        seconds = answers.seconds if answers is not None and answers.seconds else None
        measured.append(
            Measured(
                name=size.name, outcomes=answer, lists_five=each.top_k >= 5, calibration=calibration, seconds=seconds
            )
        )
    comparison = compare(measured, sweep.checkpoint.network)
    if folder is not None and len(measured) > 1:
        policies = {size.name: asdict(size.policy) for size in sweep.sizes}
        content = sizes_file(comparison, policies, sweep.checkpoint.info.digest)
        _put(folder.join(SIZES_FILE), json.dumps(content, indent=1).encode())
        _put(folder.join(PAGE_FILE), sizes_page(comparison, folder.shown).encode())
    return comparison


def _answers(size: SweptSize, found: Outcomes, num_classes: int) -> Answers | None:
    """Returns the logits of some images; None for a size without a pass."""
    if size.place is None:
        logger.info(
            "calibration.no_logits size=%s output=%s: the output was made without its logits; evaluate into another "
            "--output to calibrate its scores", size.name, size.config.output.folder.shown,
        )  # fmt: skip
        return None
    return read_answers(size.place, found.image_id, num_classes)


def _calibration(sweep: Sweep, size: SweptSize, found: Outcomes, answers: Answers, truth: Truth) -> Calibration | None:
    if not answers.is_found.all():
        logger.info("calibration.without size=%s images=%d: not in the pass", size.name, (~answers.is_found).sum())
    calibration = calibrate(
        answers.logits,
        found.take(np.flatnonzero(answers.is_found)),
        same=truth.same,
        weights_sha256=sweep.checkpoint.info.digest,
        size=size.name,
        sizes=asdict(size.policy),
        precision=size.config.precision,
    )
    if calibration is None:
        logger.info(
            "calibration.too_few_images size=%s images=%d: it takes %d that choose and as many that judge",
            *(size.name, len(answers.logits), LEAST_IMAGES),
        )
    return calibration


def _put(file: StorePath, body: bytes) -> None:
    try:
        file.put(body)
    except StoreError as error:
        raise OutputError(f"{file} cannot be written: {error}") from error
