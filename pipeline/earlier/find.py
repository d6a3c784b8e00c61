"""Finds the rows of an output of earlier rules that are wrong, and the images without a row.

Each source is read again, once under the first and once under the present rules, if it still has the version of which
the rows were made.
"""

import logging
from collections.abc import Iterator, Sequence
from itertools import groupby

from pipeline.decode.earlier import was_decoded_otherwise
from pipeline.earlier.both_rules import Pair, read_both, same_key
from pipeline.earlier.earlier_output import EarlierOutput
from pipeline.earlier.old_rows import OldRow, read_rows
from pipeline.earlier.wrong_row import WrongRow
from pipeline.errors import InputError
from pipeline.inputs.formats import FILES_SCHEME, FORMATS, InputFormat, format_of
from pipeline.inputs.ids import object_id, record_id
from pipeline.inputs.listing import Found, Survey
from pipeline.inputs.loose_files import Member, read_files
from pipeline.inputs.record import Record
from pipeline.inputs.rules import FIRST_RULES, RULES
from pipeline.output.ids import doubled_ids
from pipeline.output.published import PublishedFile
from pipeline.store.errors import ChangedError, NotFoundError, StoreError, UnaddressableError
from pipeline.store.object_info import ObjectInfo
from pipeline.store.uris import is_addressable, is_local, split_uri

logger = logging.getLogger(__name__)

_PASSED_OVER = "passed over under the first rules"


class WrongRows:
    """The findings about an output; iterating over them reads the output and its sources.

    Memory holds the ids that several rows have, the rows of one output file without their answers, and what the readers
    hold.

    Attributes:
        not_compared: number of shards and loose images whose source is gone, changed or cannot be named by a request.
            Of their rows only ids and answers are judged.

    Raises:
        InputError: an input is missing, or the store cannot read a source. Raised while the findings are iterated.
        OutputError: an output file cannot be read. Raised while the findings are iterated.
    """

    def __init__(self, earlier: EarlierOutput) -> None:
        self.not_compared = 0
        self._earlier = earlier
        self._doubled: set[str] = set()

    def __iter__(self) -> Iterator[WrongRow]:
        earlier = self._earlier
        if not earlier.earlier and earlier.is_taken_over:
            return
        self._doubled = doubled_ids(earlier.output, earlier.files)
        try:
            for shard, files in groupby(earlier.earlier, key=lambda file: file.shard):
                of = self._of_group if shard.startswith(FILES_SCHEME) else self._of_shard
                yield from of(shard, list(files))
            if not earlier.is_taken_over and earlier.input.limit is None:
                yield from self._of_listing()
        except StoreError as error:
            raise InputError(f"an input cannot be read: {error}") from error

    def _of_group(self, shard: str, files: Sequence[PublishedFile]) -> Iterator[WrongRow]:
        """Yields the findings about loose images."""
        for file in files:
            rows = list(self._rows([file]))
            members = {
                row.row: Member(row.image_id, row.key or "", row.encoded_bytes or 0, row.source_etag, row.true_label)
                for row in rows
                if row.is_ok and row.source_etag is not None
            }
            records = read_files(list(members.values()), self._earlier.input.store, give_up_failed=False)
            for row in rows:
                record = next(records) if row.row in members else None
                self.not_compared += record is not None and record.failure is not None
                yield from self._judged(row, Pair(row.row, record, None), object_id(row.image_id, RULES))

    def _of_shard(self, shard: str, files: Sequence[PublishedFile]) -> Iterator[WrongRow]:
        """Yields the findings about the rows of a shard, and its images without a row."""
        info, shard_format = self._earlier.input.place(shard).head(), self._format(shard)
        rows = self._rows(files)
        row = next(rows, None)
        if info is None or shard_format is None or info.etag not in {file.source_etag for file in files}:
            self.not_compared += 1
            logger.warning("shard.not_compared shard=%s: it is gone, or has changed since it was read", shard)
        else:
            for pair in self._pairs(info, shard_format, is_new=False):
                if pair.row is None:
                    yield from self._without_row(shard, pair)
                while row is not None and pair.row is not None and row.row <= pair.row:
                    is_same = row.row == pair.row and row.source_etag == info.etag
                    yield from self._of_record(row, pair if is_same else None)
                    row = next(rows, None)
        while row is not None:
            yield from self._of_record(row, None)
            row = next(rows, None)

    def _of_listing(self) -> Iterator[WrongRow]:
        """Yields the images of the inputs that the first rules pass over and that lie in no shard of the output."""
        begun = {file.shard for file in self._earlier.files}
        first_names = self._earlier.input.under_rules(FIRST_RULES).names
        for found in Survey(self._earlier.input, self._earlier.output.uri):
            uri = found.info.uri
            if found.is_loose:
                if _is_listed_only_now(uri) or not first_names.takes_image(found.name):
                    yield WrongRow("no row", object_id(uri, RULES), uri, found.name, None, None, None, _PASSED_OVER)
            elif uri not in begun:
                yield from self._of_shard_without_rows(found)

    def _of_shard_without_rows(self, found: Found) -> Iterator[WrongRow]:
        uri = found.info.uri
        for pair in self._pairs(found.info, FORMATS[found.format], is_new=_is_listed_only_now(uri)):
            if pair.row is None:
                yield from self._without_row(uri, pair)

    def _pairs(self, info: ObjectInfo, shard_format: InputFormat, *, is_new: bool) -> Iterator[Pair]:
        try:
            yield from read_both(self._earlier.input, info, shard_format, is_new=is_new)
        except (ChangedError, NotFoundError, UnaddressableError) as error:
            self.not_compared += 1
            logger.warning("shard.not_compared shard=%s error=%s", info.uri, error)

    def _without_row(self, shard: str, pair: Pair) -> Iterator[WrongRow]:
        # With a limit, images behind the limit have no row either.
        if pair.now is None or self._earlier.input.limit is not None:
            return
        reason = _PASSED_OVER if pair.now.failure is None else pair.now.failure.message
        key = pair.now.key
        yield WrongRow("no row", record_id(shard, key, RULES), shard, key, None, None, None, reason)

    def _of_record(self, row: OldRow, pair: Pair | None) -> Iterator[WrongRow]:
        key, now = row.key, None if pair is None else pair.now
        if now is not None and not same_key(key, now.key):
            key = now.key
        yield from self._judged(row, pair, record_id(row.shard, key, RULES))

    def _judged(self, row: OldRow, pair: Pair | None, id_now: str) -> Iterator[WrongRow]:
        """Yields the findings about one row."""
        place = (row.image_id, row.shard, row.key, row.row)
        if row.image_id in self._doubled:
            yield WrongRow("id", *place, row.image_id, id_now, "several rows have this id")
        elif row.image_id != id_now:
            yield WrongRow("id", *place, row.image_id, id_now, "the id might be that of another image, or is misread")
        if row.not_finite is not None:
            yield WrongRow("not finite", *place, None, None, f"{row.not_finite} is NaN or infinite")
        if pair is None:
            return
        if pair.now is not None and pair.now.true_label != row.true_label:
            yield WrongRow("label", *place, row.true_label, pair.now.true_label, "the label is read otherwise")
        reason = None if not row.is_ok or pair.first is None else _pixels_reason(pair.first)
        if reason is not None:
            yield WrongRow("pixels", *place, None, None, reason)

    def _rows(self, files: Sequence[PublishedFile]) -> Iterator[OldRow]:
        return read_rows(self._earlier.output, files, self._earlier.infos)

    def _format(self, shard: str) -> InputFormat | None:
        return format_of(shard) or FORMATS.get(self._earlier.input.format)


def _pixels_reason(record: Record) -> str | None:
    return None if record.data is None else was_decoded_otherwise(record.data)


def _is_listed_only_now(uri: str) -> bool:
    """Returns whether the first rules pass over an object because of its key."""
    return not is_local(uri) and not is_addressable(split_uri(uri)[2])
