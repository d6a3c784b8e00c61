"""Merges the listing and the groups of earlier plans in the order of their URIs."""

import heapq
from collections.abc import Iterable, Iterator, Sequence

from pipeline.inputs.listing import Found
from pipeline.plan.file_groups import OpenGroup
from pipeline.plan.planned_shard import PlannedShard

_Known = tuple[str, int, tuple[OpenGroup, int]]


def merge_by_uri(
    listed: Iterable[Found], earlier: Sequence[Iterable[PlannedShard]]
) -> Iterator[tuple[Found | None, list[tuple[OpenGroup, int]]]]:
    """Yields, for each URI in order, the listed object and the earlier groups that have a member with the URI.

    The object is None if the URI is not listed. Each group comes as a pair (group, index of the member in the group).
    """

    def from_plan(number: int, shards: Iterable[PlannedShard]) -> Iterator[_Known]:
        for shard in shards:
            group = OpenGroup(shard)
            for row, member in enumerate(shard.members):
                yield member.uri, number, (group, row)

    known = heapq.merge(*(from_plan(n, shards) for n, shards in enumerate(earlier)), key=lambda entry: entry[:2])
    pending = next(known, None)
    for found in listed:
        uri = found.info.uri
        while pending is not None and pending[0] < uri:
            members, pending = _same_uri(pending, known)
            yield None, members
        members = []
        if pending is not None and pending[0] == uri:
            members, pending = _same_uri(pending, known)
        yield found, members
    while pending is not None:
        members, pending = _same_uri(pending, known)
        yield None, members


def _same_uri(first: _Known, rest: Iterator[_Known]) -> tuple[list[tuple[OpenGroup, int]], _Known | None]:
    """Returns (group, row) of each entry that has the URI of the first entry, and the next entry with another URI."""
    members = [first[2]]
    following = next(rest, None)
    while following is not None and following[0] == first[0]:
        members.append(following[2])
        following = next(rest, None)
    return members, following
