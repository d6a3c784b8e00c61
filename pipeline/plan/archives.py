"""Tar and Parquet objects: what is to do in one, by the output files that it has."""

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
    """One object against its output files.

    Attributes:
        action: what is to do; None: every row is published and current.
        done, rewrites: as the plan has them.
        retried: failed records that are tried again.
        emptied: output files to be emptied before the object is read.
        emptied_anyway: those to be emptied also if it is not read now: what lies beside rows of its present version.
    """

    action: Action | None
    done: tuple[DoneSlice, ...]
    rewrites: tuple[Rewrite, ...]
    retried: int
    emptied: tuple[PublishedFile, ...]
    emptied_anyway: tuple[PublishedFile, ...]

    def planned(self, found: Found, code: str, num_records: int | None) -> PlannedShard:
        """The object as a row of the plan.

        Args:
            code: its `hash16`.
            num_records: how many records it holds, or is to; None: as many as are found.
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
    """What is to do in an object.

    Args:
        etag: its present version.
        files: its output files, of any version.
        retries: tells the error codes whose records are tried again.
        read_rows: output file -> its rows.
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
        # Without rows of the present version, those of an older one are all that there is.
        emptied_anyway=(*stale, *whole.extra) if whole.files else (),
    )


def _has_failed(file: PublishedFile, retries: Retries) -> bool:
    return file.failed > 0 and any(map(retries, file.footer.totals.failed_by_code))


def _lost_tail(chain: Chain, retries: Retries, read_rows: ReadRows) -> tuple[PublishedFile | None, int]:
    """The slice from which on a shard is read again, since the store lost the rest of it, and the rows that say so.

    One row without a key stands for records nobody has counted, so it cannot be exchanged by itself.
    """
    last = chain.files[-1] if chain.files and chain.files[-1].end else None
    if last is None or not _has_failed(last, retries):
        return None, 0
    num_lost = sum(row.key is None and retries(row.error_code) for row in read_rows(last))
    return (last, num_lost) if num_lost else (None, 0)


def _rewrites(files: Sequence[PublishedFile], retries: Retries, read_rows: ReadRows) -> tuple[Rewrite, ...]:
    """The exchanges of failed rows that are tried again."""
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
