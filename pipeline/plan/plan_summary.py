"""Counts of a plan, and the output files that are emptied before the work begins."""

from dataclasses import dataclass, field

from pipeline.output.published import PublishedFile


@dataclass(frozen=True, slots=True)
class Emptying:
    """An output file that is emptied.

    Attributes:
        awaits: version of the file's source whose rows may fill the file again; None if no version may.
    """

    file: PublishedFile
    awaits: str | None


@dataclass(slots=True)
class PlanSummary:
    """Counts of a plan; complete when the last planned shard has been taken.

    Attributes:
        complete_shards: shards of which every row is published and current.
        new_shards, continued_shards, changed_shards: planned shards that are new, begun by an earlier run, or changed.
            A group has changed if one of its files has changed.
        retried_records: failed records that are tried again.
        removed_records: rows in the output whose source is gone.
        pruned_records: rows whose source is gone and that this run takes out.
        older_objects: objects that are left out since they were last modified before `since_s`.
        postponed_images: records that are left to the next run, of shards with a known number of records.
        postponed_shards: objects with an unknown number of records that are left to the next run.
        emptied: output files that are emptied before the work begins.
    """

    complete_shards: int = 0
    new_shards: int = 0
    continued_shards: int = 0
    changed_shards: int = 0
    retried_records: int = 0
    removed_records: int = 0
    pruned_records: int = 0
    older_objects: int = 0
    postponed_images: int = 0
    postponed_shards: int = 0
    emptied: list[Emptying] = field(default_factory=list)
