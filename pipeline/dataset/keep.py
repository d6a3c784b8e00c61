"""Keeps the data set of a run's output: the update and the exports, while the run has its lease."""

import logging
from dataclasses import dataclass
from typing import Any

from pipeline.dataset.drift import Drift
from pipeline.dataset.exports import ExportConfig, Exporter
from pipeline.dataset.published import labels_uri
from pipeline.dataset.update import DatasetConfig, Update, describe_drift, update_dataset
from pipeline.errors import DriftError, OutputError, StoppedError
from pipeline.prepare import Run
from pipeline.stopper import own_stopper
from pipeline.store_errors import StoreError
from pipeline.uris import shown

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a run did to the data set of its output.

    Attributes:
        uri: of the data set.
        written: URIs of the exports that were written.
    """

    uri: str
    update: Update
    written: tuple[str, ...]

    @property
    def is_changed(self) -> bool:
        """False if everything was as it should be."""
        return self.update.changes is not None or bool(self.written)

    def summary(self) -> dict[str, Any]:
        """The headline, for the last line of stdout."""
        changes, corrections = self.update.changes, self.update.corrections
        found: dict[str, Any] = {"labels": shown(self.uri), **self.update.published.footer.counts}
        if changes is not None:
            found |= {**changes.counts, "drift": describe_drift(changes.drift)}
        if corrections is not None:
            found |= {"overrides": corrections.rows, "overrides_unused": corrections.unused}
        return {**found, "exports": [shown(uri) for uri in self.written]}

    def error(self) -> DriftError | None:
        """What the run should be told as; None if nothing drifted."""
        over = {} if self.update.changes is None else self.update.changes.over
        if not over:
            return None
        told = "; ".join(_told(name, drift) for name, drift in over.items())
        return DriftError(
            f"new images are not like those before: {told}. The data set is published; look at a sample of what this "
            "run added, at what feeds the bucket, and at --max-drift"
        )


def keep_dataset(run: Run, config: DatasetConfig, exports: ExportConfig) -> Kept:
    """Brings the data set and its exports up to date with what the run's output holds now.

    Raises:
        PipelineError: with a sentence that says what to do.
    """
    output, store = run.config.output.uri, run.config.output.store
    names = run.checkpoint.labels or tuple(str(number) for number in range(run.checkpoint.network.num_classes))

    def check_right() -> None:
        run.lease.check()
        run.lease.fence.check()

    try:
        # The run's own stopper has done its work.
        with own_stopper():
            files = list(run.published.values())
            update = update_dataset(output, store, files, names, config, run.run_id, check_right)
            written = Exporter(update.published, output, store, exports, check_right).write()
    except KeyboardInterrupt:
        run.lease.check()
        raise StoppedError(
            "stopped while the data set was updated; what is published is whole, the same command continues"
        ) from None
    except StoreError as error:
        raise OutputError(f"the data set of {shown(output)} cannot be written: {error}") from error
    return Kept(uri=labels_uri(output), update=update, written=tuple(written))


def _told(name: str, drift: Drift) -> str:
    moved = ", ".join(f"{label} {100 * then:.0f} % -> {100 * now:.0f} %" for label, then, now in drift.moved)
    return f"{name} have a stability index of {drift.psi:.2f}, over {drift.limit:.2f} ({moved})"
