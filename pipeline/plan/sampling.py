"""What is drawn from a plan, to learn from a part of it what the whole takes: the same part every time."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace

from pipeline.inputs.loose_files import Member
from pipeline.plan.planned_shard import PlannedShard


def sample_shards(shards: Iterable[PlannedShard], count: int) -> list[PlannedShard]:
    """That many of the shards, each with the same chance."""
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
    """Shards to try a job on: drawn ones in an order drawn by lot, so that those which come first stand for all.

    Each is read from its beginning, whatever of it is done. Of a group of loose files so many come as fit its share of
    `most_members`, by lot too, but `neighbours` at a time: next to one another in a folder lie files of one kind, and
    a chunk of one kind is not the same work as a chunk of all kinds.
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
    """At most so many members of a group that are there, in pieces of neighbours drawn by lot."""
    present = [member for member in shard.members if member.etag is not None]
    pieces = [present[start : start + neighbours] for start in range(0, len(present), neighbours)]
    random.Random(shard.hash16).shuffle(pieces)
    return tuple(member for piece in pieces for member in piece)[:most]
