"""Reads a shard under the first and under the present rules of reading, and says which records belong together."""

import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from pipeline.inputs.config import InputConfig
from pipeline.inputs.formats import InputFormat
from pipeline.inputs.record import Record, ShardEnd
from pipeline.inputs.rules import FIRST_RULES, RULES
from pipeline.store.object_info import ObjectInfo

# Readers put this behind a key that an earlier record has, and the number depends on the records before.
_ROW_BEHIND_KEY = re.compile(r"(?:@[0-9]+)+\Z")


class Pair(NamedTuple):
    """One image of a shard.

    Attributes:
        row: number of the record under the first rules; None if the first rules have no record of the image.
        first: record under the first rules; None if they have none.
        now: record under the present rules; None if they have none.
    """

    row: int | None
    first: Record | None
    now: Record | None


def read_both(config: InputConfig, info: ObjectInfo, shard_format: InputFormat, *, is_new: bool) -> Iterator[Pair]:
    """Yields the images of a shard, in their order; two records are in memory beside what the readers hold.

    Args:
        config: settings of the inputs.
        info: size and ETag of the version to read.
        is_new: True if the first rules do not read the shard at all.

    Raises:
        StoreError: the shard changed, or cannot be read.
    """
    place = config.place(info.uri)
    with place.open(size=info.size, etag=info.etag) as one, place.open(size=info.size, etag=info.etag) as other:
        first = () if is_new else _records(one, shard_format, config.under_rules(FIRST_RULES), info.uri)
        yield from _paired(enumerate(first), _records(other, shard_format, config.under_rules(RULES), info.uri))


def same_key(first: str | None, now: str | None) -> bool:
    """Returns whether two keys differ at most by the number that a reader adds to a name that comes again."""
    return first == now or (None not in (first, now) and _plain(first) == _plain(now))


def _plain(key: str | None) -> str:
    return _ROW_BEHIND_KEY.sub("", key or "")


def _records(file: BinaryIO, shard_format: InputFormat, config: InputConfig, uri: str) -> Iterator[Record]:
    items = shard_format.read(file, config.options_for(uri), 0)
    return (item for item in items if not isinstance(item, ShardEnd))


def _paired(first: Iterator[tuple[int, Record]], now: Iterator[Record]) -> Iterator[Pair]:
    """Yields pairs; the present rules have the records of the first rules, in the same order, and others between them.

    A record of the first rules that has no partner comes after all records of the present rules.
    """
    ahead = next(first, None)
    for record in now:
        if ahead is not None and _is_same(ahead[1], record):
            yield Pair(*ahead, record)
            ahead = next(first, None)
        else:
            yield Pair(None, None, record)
    while ahead is not None:
        yield Pair(*ahead, None)
        ahead = next(first, None)


def _is_same(first: Record, now: Record) -> bool:
    if same_key(first.key, now.key):
        return True
    # Under the first rules, old-GNU headers with times of access gave names with these times before them.
    is_behind = first.key is not None and now.key is not None and first.key.endswith("/" + _plain(now.key))
    return is_behind and first.data == now.data
