"""Warns about the names that a run passed over, and finds the inputs that hold nothing else."""

import logging
from collections.abc import Iterable

from pipeline.account.report import Report
from pipeline.account.totals import Totals
from pipeline.chunks.passed_over import LATE_SIDECARS, add_up
from pipeline.errors import InputError
from pipeline.inputs.left_out import how_to_include, unknown_endings
from pipeline.output.published import PublishedFile
from pipeline.run.run import Run
from pipeline.store.uris import is_inside

logger = logging.getLogger(__name__)


def passed_over(report: Report) -> dict[str, int]:
    """Returns the number of names by ending that the run passed over, when it listed the inputs and in their shards."""
    return add_up([report.run.passed_over, report.passed_over])


def warn_about(run: Run, report: Report) -> None:
    """Logs one warning about names whose endings say nothing, and one about sidecars that missed their images."""
    counts = passed_over(report)
    if late := counts.get(LATE_SIDECARS, 0):
        logger.warning(
            "sidecars.late members=%d: they stand too far from their image in a tar to be joined; put each beside it",
            late,
        )
    rules = run.config.input.names.rules
    if unknown := unknown_endings(counts, rules):
        logger.warning("names.passed_over %s", how_to_include(unknown))


def inputs_without_images(run: Run, files: Iterable[PublishedFile]) -> list[InputError]:
    """Returns an error for each input that has shards alone, all of which were read and hold no image.

    An input of empty shards is no error. The files of earlier runs count, so that each run ends with the same errors.

    Args:
        files: output files after a run that did all its work.
    """
    found = []
    there = [file for file in files if not file.emptied]
    for root in run.plan.only_shards:
        inside = [file for file in there if is_inside(file.shard, root)]
        if any(file.rows for file in inside):
            continue
        totals = sum((file.footer.totals for file in inside), Totals())
        if totals.ignored:
            unknown = unknown_endings(totals.passed_over, run.config.input.names.rules)
            why = how_to_include(unknown) if unknown else f"{totals.ignored} members passed over; see --include"
            shards = len({file.shard for file in inside})
            found.append(InputError(f"input {root}: none of its {shards} shards holds an image: {why}"))
    return found
