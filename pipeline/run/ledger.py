"""The ledger of a run holds the run's findings. A report is made from a ledger and from the facts in `run.py`.

    list of output files    ->  take_listing, take_files    ->  files
    collectors' answers     ->  take_states, take_receipts  ->  receipts, totals, breakdown, timeline, first_row_at
    Ray Data's statistics   ->  take_operators              ->  operators
    driver                  ->  begin_pass, note_*          ->  num_passes, processors, planned_macs, bound

Only these methods change a ledger. The properties only read.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.account.breakdown import Breakdown
from pipeline.account.ray_operators import Operators
from pipeline.account.timeline import Timeline
from pipeline.account.totals import Totals
from pipeline.cluster.processors import Processors
from pipeline.output.published import PublishedFile
from pipeline.publish.collector import CollectorState
from pipeline.publish.receipt import Receipt


class Ledger:
    """The findings of one run so far."""

    def __init__(self, started_at: float, files: Iterable[PublishedFile] = ()) -> None:
        """Opens the ledger of a run.

        Args:
            started_at: `time.time()` of the start of the program, where the timeline begins.
            files: the output's files when the run began.
        """
        self._files = _by_name(files)
        self._receipts: list[Receipt] = []
        self._states: Sequence[CollectorState] = ()
        self._totals, self._breakdown, self._timeline = Totals(), Breakdown(), Timeline(started_at)
        self._first_row_at: float | None = None
        self._operators = Operators()
        self._num_passes = 0
        self._processors: Processors | None = None
        self._planned_macs: float | None = None
        self._bound: str | None = None
        self._size_check: Mapping[str, Any] | None = None

    def note_size_check(self, size_check: Mapping[str, Any] | None) -> None:
        """Notes what is known of the sizes of images before the work."""
        self._size_check = size_check

    def take_listing(self, files: Iterable[PublishedFile]) -> None:
        """Takes the list of all files that the output has now."""
        self._files = _by_name(files)

    def take_files(self, files: Iterable[PublishedFile]) -> None:
        """Takes output files that this run wrote; they replace older files with the same names."""
        self._files = {**self._files, **_by_name(files)}

    def take_states(self, states: Sequence[CollectorState]) -> None:
        """Takes the present state of every collector, and the receipts that are new since the last call."""
        self._states = [replace(state, receipts=()) for state in states]
        self.take_receipts(receipt for state in states for receipt in state.receipts)
        moments = [state.first_row_at for state in states if state.first_row_at is not None]
        # A collector that was restarted does not know of the rows before its restart.
        if self._first_row_at is not None:
            moments.append(self._first_row_at)
        self._first_row_at = min(moments, default=None)

    def take_receipts(self, receipts: Iterable[Receipt]) -> None:
        """Takes receipts of slices that this run published, and adds up their totals, breakdowns and work."""
        for receipt in receipts:
            self._totals += receipt.footer.own or receipt.footer.totals
            self._totals += Totals(seconds={"put": receipt.put_s}, counts={"bytes_out": receipt.bytes_out})
            self._breakdown += receipt.breakdown
            for span, images, pixels, macs in receipt.work:
                self._timeline.add(span, images, pixels, macs)
            self._receipts.append(receipt.bare())

    def take_operators(self, operators: Operators) -> None:
        """Adds Ray Data's statistics about its operators for one execution of the flow."""
        self._operators += operators

    def begin_pass(self) -> int:
        """Counts a pass that begins; returns the number of the pass, which is 1 for the first pass."""
        self._num_passes += 1
        return self._num_passes

    def note_processors(self, processors: Processors) -> None:
        """Notes the present division of the cluster's processors."""
        self._processors = processors

    def note_planned_macs(self, macs: float) -> None:
        """Notes the estimated multiply-accumulates of the whole plan."""
        self._planned_macs = macs

    def note_bound(self, bound: str | None) -> None:
        """Notes the sentence that names the bound of the run and the work that is left; None without a bound."""
        self._bound = bound

    @property
    def files(self) -> Mapping[str, PublishedFile]:
        """The output's files by name, including the files of earlier runs."""
        return self._files

    @property
    def receipts(self) -> Sequence[Receipt]:
        """Receipts of this run's slices, in the order of their arrival, without breakdown and work."""
        return self._receipts

    @property
    def totals(self) -> Totals:
        """Sums of counts and seconds over this run's receipts."""
        return self._totals

    @property
    def breakdown(self) -> Breakdown:
        """Sizes, labels, scores and examples of the rows in this run's slices."""
        return self._breakdown

    @property
    def timeline(self) -> Timeline:
        """The run's work by time, step and process."""
        return self._timeline

    @property
    def first_row_at(self) -> float | None:
        """`time.time()` at which the first row reached a collector; None before the first row."""
        return self._first_row_at

    @property
    def arrived(self) -> Totals:
        """Sums over the rows that have reached the collectors, published or not."""
        return sum((state.arrived for state in self._states), Totals())

    @property
    def num_replayed_chunks(self) -> int:
        """Number of chunks that reached a collector a second time."""
        return sum(state.replayed_chunks for state in self._states)

    @property
    def fatal(self) -> str | None:
        """Why a collector cannot publish any more; None if all collectors can publish."""
        return next((state.fatal for state in self._states if state.fatal), None)

    @property
    def progress_mark(self) -> Hashable:
        """A value that changes whenever a chunk reaches a collector or a slice is published."""
        arrived = tuple((state.arrived.listed, state.replayed_chunks) for state in self._states)
        return arrived, len(self._receipts)

    @property
    def operators(self) -> Operators:
        """Ray Data's statistics about its operators, summed over all passes."""
        return self._operators

    @property
    def num_passes(self) -> int:
        """Number of passes that have begun."""
        return self._num_passes

    @property
    def processors(self) -> Processors | None:
        """Division of the cluster's processors; None before the run joined the cluster."""
        return self._processors

    @property
    def planned_macs(self) -> float | None:
        """Estimated multiply-accumulates of the whole plan; None if there is no estimate."""
        return self._planned_macs

    @property
    def size_check(self) -> Mapping[str, Any] | None:
        """Sizes of images and of the network, as `compare_sizes` returns them."""
        return self._size_check

    @property
    def bound(self) -> str | None:
        """Sentence that names the bound of the run and the work that is left; None if no bound ended the run."""
        return self._bound


def _by_name(files: Iterable[PublishedFile]) -> dict[str, PublishedFile]:
    return {file.file: file for file in files}
