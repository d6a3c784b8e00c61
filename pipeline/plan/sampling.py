"""A deterministic sample of a plan's shards, used to estimate the whole."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace

from pipeline.inputs.loose_files import Member
from pipeline.plan.planned_shard import PlannedShard


def sample_shards(shards: Iterable[PlannedShard], count: int) -> list[PlannedShard]:
    """Returns `count` random shards of a plan, each equally likely; all shards if the plan has fewer."""
    rng = random.Random(0)
    kept: list[PlannedShard] = []
    for index, shard in enumerate(shards):
        if len(kept) < count:
            kept.append(shard)
        elif (place := rng.randrange(index + 1)) < count:
            kept[place] = shard
    return kept


def trial_plan(
    shards: Iterable[PlannedShard], *, most_shards: int, most_members: int, neighbours: int
) -> Iterator[PlannedShard]:
    """Yields shards for a trial of a job: a random sample in random order, so that the first shards are typical.

    Every shard is read from its beginning, even if parts of the shard are done. A group of loose files is cut down to
    its share of `most_members`. The members of a group are chosen in runs of neighbours: files that lie next to each
    other in a folder are alike, and the work of a chunk of similar files differs from that of a chunk of mixed files.

    Args:
        most_shards: largest number of shards.
        most_members: approximate number of loose files in all groups together.
        neighbours: number of members in a run, which are chosen together.
    """
    kept = sample_shards(shards, most_shards)
    random.Random(1).shuffle(kept)
    most = max(neighbours, most_members // max(1, len(kept)))
    for shard in kept:
        whole = replace(shard, action="new", done=(), rewrites=(), pruned=(), known=False)
        if not shard.is_group:
            yield whole
        elif members := _some_members(shard, most, neighbours):
            size = sum(member.size for member in members)
            yield replace(whole, members=members, num_records=len(members), size=size)


def _some_members(shard: PlannedShard, most: int, neighbours: int) -> tuple[Member, ...]:
    """Returns at most `most` members of a group that still exist, in random runs of neighbours."""
    present = [member for member in shard.members if member.etag is not None]
    pieces = [present[start : start + neighbours] for start in range(0, len(present), neighbours)]
    random.Random(shard.hash16).shuffle(pieces)
    return tuple(member for piece in pieces for member in piece)[:most]
