"""Checks of the inputs before any work: whether they can be read, and how many records they hold."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice

from pipeline.errors import InputError
from pipeline.inputs.config import InputConfig
from pipeline.inputs.listing import Found
from pipeline.inputs.parquet import check_columns, num_rows, read_schema
from pipeline.inputs.record import Record
from pipeline.inputs.tar import read_tar
from pipeline.plan.planned_shard import PlannedShard
from pipeline.plan.sampling import drawn
from pipeline.store.errors import ChangedError, DeniedError, NotFoundError, StoreError
from pipeline.store.storage import open_reader, read_range
from pipeline.store.uris import is_local

logger = logging.getLogger(__name__)


# Of a plan, and of each shard, to find out whether anything may be read.
_ASKED_SHARDS = 8


_ASKED_OBJECTS = 4


def count_records(found: Found, at_most: int, config: InputConfig) -> int:
    """Records in a tar or Parquet object, or `at_most` if there are more; reads no more of it than that takes.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with open_reader(found.info.uri, config.store, size=found.info.size, etag=found.info.etag) as file:
            if found.kind == "parquet":
                return min(num_rows(file), at_most)
            records = read_tar(file, names=config.names, keep_columns=())
            return sum(1 for _ in islice((item for item in records if isinstance(item, Record)), at_most))
    except (NotFoundError, ChangedError, ValueError):
        return 1  # the one row that says so
    except StoreError as error:
        raise InputError(f"input {found.info.uri} cannot be read: {error}") from error


def check_input(found: Found, config: InputConfig) -> bool:
    """Looks into a Parquet object, so that a wrong column name stops the job before any work.

    Returns:
        True if it has what it needs; False if it is broken, which stops nothing: it becomes a failed row.

    Raises:
        InputError: it has no column with images, or lacks a column to keep; or the store does not let it be read.
    """
    uri = found.info.uri
    try:
        with open_reader(uri, config.store, size=found.info.size, etag=found.info.etag) as file:
            schema = read_schema(file)
    except (NotFoundError, ChangedError, ValueError) as error:
        logger.warning("shard.broken shard=%s error=%s", uri, error)
        return False
    except StoreError as error:
        raise InputError(f"input {uri} cannot be read: {error}") from error
    try:
        check_columns(schema, config.image_column, config.keep_columns)
    except ValueError as error:
        raise InputError(f"input {uri}: {error}") from error
    return True


def check_permission(shards: Iterable[PlannedShard], config: InputConfig) -> None:
    """Asks for a byte of some objects of a plan, so that a permission that is lacking stops the job before any work.

    Where one may be read, those that may not become failed rows.

    Args:
        shards: can be iterated twice; only the first is looked at if it can be read.

    Raises:
        InputError: none of them may be read.
    """
    if all(is_local(uri) for uri in config.uris):
        return
    refusal = _refusal(islice(shards, 1), config) and _refusal(drawn(shards, _ASKED_SHARDS), config)
    if refusal is not None:
        raise InputError(f"the input may be listed, but not read: {refusal}; check the credentials or the profile")


def _refusal(shards: Iterable[PlannedShard], config: InputConfig) -> DeniedError | None:
    """The first refusal, if none of some objects of these shards may be read."""
    store = replace(config.store, deadline_s=0.0)
    first: DeniedError | None = None
    for shard in shards:
        objects: list[tuple[str, str | None]] = [(it.uri, it.etag) for it in shard.members if it.etag and it.size]
        objects = objects or [(shard.shard, shard.etag)]
        for uri, etag in objects[:: -(-len(objects) // _ASKED_OBJECTS)]:
            if is_local(uri) or etag is None:
                return None
            try:
                read_range(uri, store, 0, 1, etag)
                return None
            except DeniedError as error:
                if not error.is_permission:
                    return None
                first = first or error
            except StoreError:
                return None  # the read step has the patience and the words for it
    return first
