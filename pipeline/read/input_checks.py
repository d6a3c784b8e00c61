"""Checks of the inputs before any work: whether they can be read, and how many records they hold."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

from pipeline.errors import InputError
from pipeline.inputs.config import InputConfig
from pipeline.inputs.formats import FORMATS, Check
from pipeline.inputs.listing import Found
from pipeline.inputs.record import ColumnError, Record
from pipeline.plan.planned_shard import PlannedShard
from pipeline.plan.sampling import sample_shards
from pipeline.store.errors import ChangedError, DeniedError, NotFoundError, StoreError, UnaddressableError

logger = logging.getLogger(__name__)

_IMAGES = ""
"""Stands for the column of images among the names of the columns to keep."""

# Largest number of objects that are opened in search of a column.
_MOST_SEARCHED = 10_000
# Number of objects that are opened at least, if there are columns to keep, to count those that lack one.
_LEAST_COUNTED = 100
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
                return min(shard_format.count(file, config.reader_options), at_most)
            items = shard_format.read(file, replace(config.reader_options, keep_columns=()), 0)
            return sum(1 for _ in islice((item for item in items if isinstance(item, Record)), at_most))
    except (NotFoundError, ChangedError, UnaddressableError, ValueError):
        return 1  # one failed row will report the failure
    except StoreError as error:
        raise InputError(f"input {found.info.uri} cannot be read: {error}") from error


def checked_inputs(listed: Iterable[Found], config: InputConfig) -> Iterator[Found]:
    """Yields the listed objects in their order, and checks that they have the columns that the settings ask for.

    The check opens the objects of formats with columns until images and each column to keep have been found. Objects
    are held back until then, at most 10,000 of them, so that a wrong name of a column stops the job before any work. A
    loose image or a shard of another format ends the search, since it may be all that was asked for.

    An object without images becomes one failed row. An object without a column to keep gets null there. When the
    listing ends, one warning gives the number of such objects among those that were opened; for columns to keep, these
    are the first 100 objects at least.

    Raises:
        InputError: no object has images, or no object with images has a column to keep; or the store cannot read one of
            the objects that are needed to know that.
    """
    checks, held = _ColumnChecks(config), list[Found]()
    for found in listed:
        checks.look_at(found)
        if checks.is_searching:
            held.append(found)
            continue
        yield from held
        held.clear()
        yield found
    checks.finish()
    yield from held


class _ColumnChecks:
    """The search for images and for the columns to keep in the objects of an input.

    Attributes:
        is_searching: True if all objects so far have columns, and images or a column to keep are still to be found.
    """

    def __init__(self, config: InputConfig) -> None:
        self.is_searching = False
        self._config = config
        self._missing = {_IMAGES, *config.keep_columns}
        self._num_opened = 0
        self._refusals: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    def look_at(self, found: Found) -> None:
        """Takes the next object of the listing.

        Raises:
            InputError: the search goes on, and the store cannot read the object.
        """
        check = None if found.is_loose else FORMATS[found.format].check
        if check is None or self._num_opened >= _MOST_SEARCHED:
            self._missing.clear()
        elif self._missing or (self._config.keep_columns and self._num_opened < _LEAST_COUNTED):
            self._num_opened += 1
            self._open(found, check)
        self.is_searching = bool(self._missing)

    def _open(self, found: Found, check: Check) -> None:
        uri = found.info.uri
        place = self._config.place(uri)
        # Once everything was found, a check only counts, and a store that is busy is not asked again.
        place = place if self._missing else place.bounded(deadline_s=0.0)
        try:
            with place.open(size=found.info.size, etag=found.info.etag) as file:
                lacking = check(file, self._config.reader_options)
        except ColumnError as error:
            self._refuse(_IMAGES, uri, str(error))
        except (NotFoundError, ChangedError, UnaddressableError, ValueError) as error:
            logger.warning("shard.broken shard=%s error=%s", uri, error)
        except StoreError as error:
            if self._missing:
                raise InputError(f"input {uri} cannot be read: {error}") from error
        else:
            self._missing &= lacking.keys()
            for name, reason in lacking.items():
                self._refuse(name, uri, reason)

    def _refuse(self, name: str, uri: str, reason: str) -> None:
        self._counts[name] += 1
        self._refusals.setdefault(name, f"input {uri}: {reason}")

    def finish(self) -> None:
        """Logs what objects lack.

        Raises:
            InputError: no object has images, or no object with images has a column to keep.
        """
        for name in (_IMAGES, *self._config.keep_columns):
            if name in self._missing and name in self._refusals:
                raise InputError(self._refusals[name])
        if without := self._counts.pop(_IMAGES, 0):
            logger.warning(
                "shards.without_images files=%d opened=%d: each is one failed row; first: %s",
                *(without, self._num_opened, self._refusals[_IMAGES]),
            )
        if self._counts:
            logger.warning(
                "columns.lacking files=%d opened=%d columns=%s: their images are read, with null in these columns",
                *(max(self._counts.values()), self._num_opened, dict(self._counts)),
            )


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
