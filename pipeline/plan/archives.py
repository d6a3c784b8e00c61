"""Plans one object that is a shard, such as a tar or a Parquet file, by comparing it with its output files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.inputs.listing import Found
from pipeline.output.layout import readable_name
from pipeline.output.published import OutputRow, PublishedFile
from pipeline.output.slice_chain import Chain, DoneSlice, chain_of
from pipeline.plan.planned_shard import Action, PlannedShard, Rewrite

ReadRows = Callable[[PublishedFile], Sequence[OutputRow]]
Retries = Callable[[str | None], bool]


@dataclass(frozen=True, slots=True)
class ObjectState:
    """State of one object: the work that is left in the object.

    Attributes:
        action: action of the plan; None if every row is published and current.
        done, rewrites: slices that are not read again, and slices that are read again in part, as in `PlannedShard`.
        retried: number of failed records that are tried again.
        emptied: output files that are emptied before the object is read.
        emptied_anyway: output files that are emptied even if the object is not read in this run, since rows of its
            present version are published.
    """

    action: Action | None
    done: tuple[DoneSlice, ...]
    rewrites: tuple[Rewrite, ...]
    retried: int
    emptied: tuple[PublishedFile, ...]
    emptied_anyway: tuple[PublishedFile, ...]

    def planned(self, found: Found, code: str, num_records: int | None) -> PlannedShard:
        """Returns the object as a row of the plan.

        Args:
            code: `hash16` of the object.
            num_records: number of records that the object holds or that are taken of it; None takes all records.
        """
        assert self.action is not None
        return PlannedShard(
            shard=found.info.uri,
            name=readable_name(PurePosixPath(found.name).name),
            hash16=code,
            format=found.format,
            action=self.action,
            etag=found.info.etag,
            size=found.info.size,
            num_records=num_records,
            done=self.done,
            rewrites=self.rewrites,
        )


def state_of(etag: str, files: Sequence[PublishedFile], retries: Retries, read_rows: ReadRows) -> ObjectState:
    """Returns the work that is left in an object.

    Args:
        etag: present version of the object.
        files: output files of the object, made from any of its versions.
        retries: function that returns True for an error code whose records are tried again.
        read_rows: function that returns the rows of an output file.
    """
    current = [file for file in files if file.source_etag == etag]
    stale = [file for file in files if file.source_etag != etag]
    whole = chain = chain_of(current)
    lost, num_lost = _lost_tail(chain, retries, read_rows)
    emptied = list(stale)
    if lost is not None:
        chain = chain_of(file for file in chain.files if file.slice < lost.slice)
        emptied += [file for file in current if file.slice >= lost.slice and not file.emptied]
    rewrites = _rewrites(chain.files, retries, read_rows)
    action: Action | None
    if chain.complete:
        action = "rewrite" if rewrites else None
    elif any(not file.emptied for file in stale):
        action = "replace"
    else:
        action = "continue" if chain.files or lost is not None else "new"
    return ObjectState(
        action=action,
        done=chain.done(),
        rewrites=rewrites,
        retried=num_lost + sum(len(rewrite.redo) for rewrite in rewrites),
        emptied=(*emptied, *chain.extra),
        # Without rows of the present version, the rows of older versions are all that the output has.
        emptied_anyway=(*stale, *whole.extra) if whole.files else (),
    )


def _has_failed(file: PublishedFile, retries: Retries) -> bool:
    return file.failed > 0 and any(map(retries, file.footer.totals.failed_by_code))


def _lost_tail(chain: Chain, retries: Retries, read_rows: ReadRows) -> tuple[PublishedFile | None, int]:
    """Returns the slice from which on a shard is read again, and the number of rows that stand for lost records.

    A row without a key stands for an unknown number of records, so that row cannot be exchanged by itself. If there is
    no such row to try again, the function returns (None, 0).
    """
    last = chain.files[-1] if chain.files and chain.files[-1].end else None
    if last is None or not _has_failed(last, retries):
        return None, 0
    num_lost = sum(row.key is None and retries(row.error_code) for row in read_rows(last))
    return (last, num_lost) if num_lost else (None, 0)


def _rewrites(files: Sequence[PublishedFile], retries: Retries, read_rows: ReadRows) -> tuple[Rewrite, ...]:
    """Returns a rewrite for each published slice with failed rows that are tried again."""
    rewrites = []
    for file in files:
        if not _has_failed(file, retries):
            continue
        redo = tuple(row.row for row in read_rows(file) if row.key and retries(row.error_code))
        if redo:
            rewrites.append(
                Rewrite(file.slice, file.file, file.etag, file.first_row, file.last_row, file.end, redo, file.pruned)
            )
    return tuple(rewrites)
