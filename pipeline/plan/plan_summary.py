"""What a plan comes to besides its shards: counts, and the output files that are emptied before the work begins."""

from dataclasses import dataclass, field

from pipeline.output.published import PublishedFile


@dataclass(frozen=True, slots=True)
class Emptying:
    """An output file to be emptied, and the version of its source that may fill it again; None: none may."""

    file: PublishedFile
    awaits: str | None


@dataclass(slots=True)
class PlanSummary:
    """What the planner came upon; complete when the last planned shard has been taken.

    Attributes:
        complete_shards: tar and Parquet objects, and groups, of which every row is published and current.
        new_shards, continued_shards, changed_shards: planned ones by what they are; a group counts as changed if some
            of its files did.
        retried_records: failed records that are tried again.
        removed_records: rows in the output whose source is gone.
        pruned_records: those of them that this run takes out.
        older_objects: tars, Parquet objects and loose files that are not taken since they are older than `since_s`.
        postponed_images: records that are left for the next run, as far as they are known.
        postponed_shards: tars and Parquet objects that are, and hide how many of theirs.
        emptied: files to be emptied before the work begins.
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
