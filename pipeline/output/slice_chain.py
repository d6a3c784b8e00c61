"""The output files of one shard: which of them make its slices, and which say something else."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.output.published import PublishedFile


@dataclass(frozen=True, slots=True)
class DoneSlice:
    """A slice that is published already: its number and its rows, both ends included."""

    slice: int
    first_row: int
    last_row: int


@dataclass(frozen=True, slots=True)
class Chain:
    """The slices of a shard as far as they are published.

    Attributes:
        files: those that hold its rows, by slice.
        extra: those that say something else about the same rows: two attempts at one shard ended differently.
        complete: slices 0 to the end are all there.
    """

    files: tuple[PublishedFile, ...]
    extra: tuple[PublishedFile, ...]
    complete: bool

    def done(self) -> tuple[DoneSlice, ...]:
        """The slices as a plan keeps them."""
        return tuple(DoneSlice(file.slice, file.first_row, file.last_row) for file in self.files)


def chain_of(files: Iterable[PublishedFile]) -> Chain:
    """The slices that these files make.

    A slice has one file, since its name follows from its number, but for the mark of the last slice: an attempt that
    lost its source early marks another slice as the last. The longest whole chain counts; where none is whole, slices
    that are not the last do.
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
    """The files of each shard, by its `hash16`."""
    found: dict[str, list[PublishedFile]] = {}
    for file in files:
        found.setdefault(file.hash16, []).append(file)
    return found
