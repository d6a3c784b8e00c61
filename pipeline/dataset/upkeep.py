"""Keeps the data set of a run's output up to date: the update and the exports, while the run holds the lease."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pipeline.dataset.dataset_file import find_published, labels_file
from pipeline.dataset.drift import Drift, DriftWithinSizes
from pipeline.dataset.exports import ExportConfig, Exporter
from pipeline.dataset.overrides import find_overrides, read_overrides
from pipeline.dataset.update import DatasetConfig, Update, describe_drift, update_dataset
from pipeline.errors import DriftError, LeaseLostError, OutputError, PipelineError, StoppedError
from pipeline.run.ledger import Ledger
from pipeline.run.run import Run
from pipeline.run.stopper import Stopper
from pipeline.store.errors import StoreError
from pipeline.store.uris import shown

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The data set of an output after a run, with the results of the update and of the exports.

    Attributes:
        uri: URI of the data set.
        update: Result of the update.
        written: URIs of the exports that the run wrote.
        failure: Error that kept an export from being written; None without an error. The data set itself is published.
        is_bounded: True if `--max-images` or `--max-hours` ended the run, so that work is left for later runs.
    """

    uri: str
    update: Update
    written: tuple[str, ...] = ()
    failure: PipelineError | None = None
    is_bounded: bool = False

    @property
    def is_changed(self) -> bool:
        """True if the data set or an export has changed."""
        return self.update.changes is not None or bool(self.written)

    def summary(self) -> dict[str, Any]:
        """Returns the part of the run's summary that describes the data set."""
        changes, corrections = self.update.changes, self.update.corrections
        found: dict[str, Any] = {"labels": shown(self.uri), **self.update.published.footer.counts}
        if changes is not None:
            found |= {**changes.counts, "drift": describe_drift(changes.drift)}
        if corrections is not None:
            found |= {"overrides": corrections.rows, "overrides_unused": corrections.unused}
        if self.update.not_finite:
            found["not_finite"] = self.update.not_finite
        return {**found, "exports": [shown(uri) for uri in self.written]}

    def errors(self) -> list[PipelineError]:
        """Returns the errors of the update and the exports, the worst first.

        The drift of a bounded run is only logged, because such a run labels only some folders, and folders may differ.
        """
        found = [] if self.failure is None else [self.failure]
        changes = self.update.changes
        over = {} if changes is None else changes.over
        for name, drift in ({} if changes is None else changes.of_sizes_alone).items():
            logger.warning(
                "dataset.sizes_drifted: %s; images of equal size are like those before", _describe(name, drift)
            )
        if not over:
            return found
        within = {} if changes is None else changes.within_sizes
        moved = "; ".join(_describe(name, drift) + _of_sizes(within.get(name)) for name, drift in over.items())
        if self.is_bounded:
            logger.warning("dataset.drifted in a part of the work: %s", moved)
            return found
        drifted = DriftError(
            f"new images are not like those before: {moved}. The data set is published; look at a sample of what this "
            "run added, at what feeds the bucket, and at --max-drift"
        )
        return [drifted, *found]


def check_dataset(run: Run, config: DatasetConfig) -> None:
    """Checks before the work whether the policy, the corrections and the present data set are valid.

    Raises:
        PipelineError: The policy, a correction or the data set is invalid; the message says what to do.
    """
    output = run.config.output.folder
    try:
        config.policy.check(class_names(run))
        for _ in read_overrides(output, find_overrides(output, config.overrides)):
            pass
        find_published(output)
    except StoreError as error:
        raise OutputError(f"the data set of {output.shown} cannot be read: {error}") from error


def keep_dataset(run: Run, ledger: Ledger, config: DatasetConfig, exports: ExportConfig, stopper: Stopper) -> Kept:
    """Brings the data set and its exports up to date with the output of a run.

    Args:
        stopper: Stopper of the run, which is armed again during the update.

    Raises:
        PipelineError: The update failed or was stopped; the message says what to do.
    """
    output = run.config.output.folder

    def check_right() -> None:
        run.lease.check()
        run.lease.fence.check()

    with stopper.armed():
        try:
            files = list(ledger.files.values())
            update = update_dataset(output, files, class_names(run), config, run.run_id, check_right)
            kept = Kept(uri=labels_file(output).uri, update=update, is_bounded=ledger.bound is not None)
            return _with_exports(kept, run, exports, check_right)
        except (Exception, KeyboardInterrupt) as error:
            # A signal in the middle of a query arrives as an error of the database.
            if not stopper.is_armed:
                run.lease.check()
                raise StoppedError(
                    "stopped while the data set was updated; what is published is whole, the same command continues"
                ) from None
            if isinstance(error, StoreError):
                raise OutputError(f"the data set of {output.shown} cannot be written: {error}") from error
            raise


def _with_exports(kept: Kept, run: Run, exports: ExportConfig, check_right: Callable[[], None]) -> Kept:
    output = run.config.output.folder
    try:
        written = Exporter(kept.update.published, output, exports, check_right).write()
    except LeaseLostError:
        raise
    except PipelineError as error:
        return replace(kept, failure=error)
    except StoreError as error:
        return replace(kept, failure=OutputError(f"exports to {output.shown} cannot be written: {error}"))
    return replace(kept, written=tuple(written))


def class_names(run: Run) -> tuple[str, ...]:
    """Returns the name of each class of the network, or the number of each class if the classes have no names."""
    return run.checkpoint.labels or tuple(str(number) for number in range(run.checkpoint.network.num_classes))


def _describe(name: str, drift: Drift) -> str:
    moved = ", ".join(f"{label} {100 * then:.0f} % -> {100 * now:.0f} %" for label, then, now in drift.moved)
    return f"{name} have a stability index of {drift.psi:.2f}, over {drift.limit:.2f} ({moved})"


def _of_sizes(within: DriftWithinSizes | None) -> str:
    """Returns a text that says whether other sizes of images explain a drift."""
    if within is None or within.drift is None:
        return "" if within is None else ", and no earlier image is of the sizes of the new ones"
    return f"; {within.drift.psi:.2f} between images of equal size, for {within.compared:.0%} of the new images"
