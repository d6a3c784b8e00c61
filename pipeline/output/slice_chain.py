"""The output files of one shard: the files that form its slices, and the files that contradict them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.output.published import PublishedFile


@dataclass(frozen=True, slots=True)
class DoneSlice:
    """A published slice: its number, and its first and last row, both included."""

    slice: int
    first_row: int
    last_row: int


@dataclass(frozen=True, slots=True)
class Chain:
    """The published slices of a shard.

    Attributes:
        files: Files that form the slices, in order.
        extra: Files that contradict `files`, since two attempts at the shard ended at different slices.
        complete: True if all slices from 0 to the last one are published.
    """

    files: tuple[PublishedFile, ...]
    extra: tuple[PublishedFile, ...]
    complete: bool

    def done(self) -> tuple[DoneSlice, ...]:
        """Returns the published slices in the form that a plan holds."""
        return tuple(DoneSlice(file.slice, file.first_row, file.last_row) for file in self.files)


def chain_of(files: Iterable[PublishedFile]) -> Chain:
    """Returns the chain of slices that these files form.

    The name of a file follows from the number of its slice and from the mark of the last slice. So a slice has one
    file, except if an attempt lost its source early and marked another slice as the last. The longest complete chain
    counts. If no chain is complete, the slices without the mark count, and the last marked slice if it lies behind all
    of them.
    """
    entries = [file for file in files if not file.emptied]
    inner = {file.slice: file for file in entries if not file.end}
    ends = sorted((file for file in entries if file.end), key=lambda file: -file.slice)
    for end in ends:
        if all(number in inner for number in range(end.slice)):
            kept = [*(inner[number] for number in range(end.slice)), end]
            return _chain(kept, entries, complete=True)
    beyond = max(inner, default=-1)
    kept = [*inner.values(), *(end for end in ends[:1] if end.slice > beyond)]
    return _chain(kept, entries, complete=False)


def _chain(kept: Sequence[PublishedFile], entries: Sequence[PublishedFile], *, complete: bool) -> Chain:
    names = {file.file for file in kept}
    return Chain(
        files=tuple(sorted(kept, key=lambda file: file.slice)),
        extra=tuple(file for file in entries if file.file not in names),
        complete=complete,
    )


def by_shard(files: Iterable[PublishedFile]) -> dict[str, list[PublishedFile]]:
    """Returns the files of each shard, by the shard's `hash16`."""
    found: dict[str, list[PublishedFile]] = {}
    for file in files:
        found.setdefault(file.hash16, []).append(file)
    return found
