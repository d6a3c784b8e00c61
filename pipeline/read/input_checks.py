"""Checks of the inputs before any work: whether they can be read, and how many records they hold."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

from pipeline.errors import InputError
from pipeline.inputs.config import InputConfig
from pipeline.inputs.formats import FORMATS
from pipeline.inputs.listing import Found
from pipeline.inputs.record import ColumnError, Record
from pipeline.plan.planned_shard import PlannedShard
from pipeline.plan.sampling import sample_shards
from pipeline.store.errors import ChangedError, DeniedError, NotFoundError, StoreError, UnaddressableError

logger = logging.getLogger(__name__)

# Numbers of shards of a plan, and of objects of each shard, that are tried to find out whether any object may be read.
_ASKED_SHARDS = 8
_ASKED_OBJECTS = 4


def count_records(found: Found, at_most: int, config: InputConfig) -> int:
    """Returns the number of records in a shard, or `at_most` if the shard has more records.

    A shard that is gone, changed or broken counts as one record, since it becomes one failed row. The function reads
    the shard only as far as needed.

    Raises:
        InputError: the store cannot read the shard.
    """
    try:
        with config.place(found.info.uri).open(size=found.info.size, etag=found.info.etag) as file:
            shard_format = FORMATS[found.format]
            if shard_format.count is not None:
                return min(shard_format.count(file), at_most)
            items = shard_format.read(file, replace(config.reader_options, keep_columns=()), 0)
            return sum(1 for _ in islice((item for item in items if isinstance(item, Record)), at_most))
    except (NotFoundError, ChangedError, UnaddressableError, ValueError):
        return 1  # one failed row will report the failure
    except StoreError as error:
        raise InputError(f"input {found.info.uri} cannot be read: {error}") from error


def checked_inputs(listed: Iterable[Found], config: InputConfig) -> Iterator[Found]:
    """Yields the listed objects, and checks the objects of each format until one object of the format could be read.

    Raises:
        InputError: `check_input` raised the error for one of the objects.
    """
    checked: set[str] = {name for name, entry in FORMATS.items() if entry.check is None}
    for found in listed:
        if not found.is_loose and found.format not in checked and check_input(found, config):
            checked.add(found.format)
        yield found


def check_input(found: Found, config: InputConfig) -> bool:
    """Checks one object by its format, so that a wrong column name stops the job before any work.

    Returns:
        True if the object has the columns that the settings ask for; False if the object is gone, changed or broken.
        Such an object does not stop the job, but becomes a failed row.

    Raises:
        InputError: the object has no column with images or lacks a column to keep, or the store cannot read the object.
    """
    uri, check = found.info.uri, FORMATS[found.format].check
    if check is None:
        return True
    try:
        with config.place(uri).open(size=found.info.size, etag=found.info.etag) as file:
            check(file, config.reader_options)
    except ColumnError as error:
        raise InputError(f"input {uri}: {error}") from error
    except (NotFoundError, ChangedError, UnaddressableError, ValueError) as error:
        logger.warning("shard.broken shard=%s error=%s", uri, error)
        return False
    except StoreError as error:
        raise InputError(f"input {uri} cannot be read: {error}") from error
    return True


def check_permission(shards: Iterable[PlannedShard], config: InputConfig) -> None:
    """Reads one byte of some objects of a plan, so that a missing permission stops the job before any work.

    If one of the objects may be read, no error is raised: the objects that may not be read become failed rows.

    Args:
        shards: shards of the plan, which can be iterated twice; the other shards are tried only if the first shard may
            not be read.

    Raises:
        InputError: the store refused all reads.
    """
    if all(place.is_local for place in config.places):
        return
    refusal = _refusal(islice(shards, 1), config) and _refusal(sample_shards(shards, _ASKED_SHARDS), config)
    if refusal is not None:
        raise InputError(f"the input may be listed, but not read: {refusal}; check the credentials or the profile")


def _refusal(shards: Iterable[PlannedShard], config: InputConfig) -> DeniedError | None:
    """Tries to read some objects of these shards; returns the first refusal if all reads are refused, else None."""
    first: DeniedError | None = None
    for shard in shards:
        objects: list[tuple[str, str | None]] = [(it.uri, it.etag) for it in shard.members if it.etag and it.size]
        objects = objects or [(shard.shard, shard.etag)]
        for uri, etag in objects[:: -(-len(objects) // _ASKED_OBJECTS)]:
            place = config.place(uri).bounded(deadline_s=0.0)
            if place.is_local or etag is None:
                return None
            try:
                place.read_range(0, 1, etag)
                return None
            except DeniedError as error:
                if not error.is_permission:
                    return None
                first = first or error
            except StoreError:
                return None  # the read step retries, and reports this error
    return first
