"""Joins the images of a tar with the labels and captions beside them, in bounded memory.

Members form a sample if their paths are equal up to the first dot of the last part, such as `a/7.left.jpg`,
`a/7.right.jpg`, `a/7.cls` and `a/7.json` (WebDataset's rule). The members of a sample may stand in any order and apart
from each other, but must meet in a window of members, which slides over the tar. An image is yielded when it leaves the
window. A name that comes again begins another sample, as in a tar that was joined from several tars. A sidecar that
misses the image of its sample is counted.
"""

import json
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.chunks.failures import Failure
from pipeline.chunks.passed_over import LATE_SIDECARS, add_up
from pipeline.inputs.record import LABEL_NAMES, Record, as_text, class_folder, label_text
from pipeline.inputs.rules import FIRST_RULES, RULES

WINDOW_MEMBERS = 256
WINDOW_BYTES = 32 * 2**20
MAX_SIDECAR_BYTES = 2**20

_SIDECAR_ENDINGS = frozenset(("cls", "json", "txt"))
_FIRST_LABEL_FIELDS = ("label", "cls", "class")
# Key of a record that was lost with its tar before its name was read, see `InputFormat.lost_key`.
_LOST_KEY = re.compile(r"@[0-9]+")
# Largest number of sidecars without an image so far that are remembered, so that a later image finds them.
_MAX_LONELY = 100_000


@dataclass(slots=True, kw_only=True)
class Member:
    """One member of a tar: an image or the failure in its place, a sidecar, or (without data) a member passed over.

    Attributes:
        ending: ending under which a member that is passed over is counted; None if it is only counted in the sum.
    """

    name: str
    is_image: bool = False
    data: bytes | None = None
    failure: Failure | None = None
    ending: str | None = None


@dataclass(slots=True)
class _Sample:
    """Members of one sample that were seen so far.

    Attributes:
        num_images, num_yielded: number of images of the sample, and of those that have left the window.
        num_waiting: number of members of the sample that are still in the window.
    """

    names: set[str] = field(default_factory=set)
    sidecars: dict[str, bytes] = field(default_factory=dict)
    num_images: int = 0
    num_yielded: int = 0
    num_waiting: int = 0


def is_sidecar(name: str) -> bool:
    """Returns True for a sample's key followed by `.cls`, `.json` or `.txt`, in upper or lower case."""
    return _split(name)[1] in _SIDECAR_ENDINGS


def _split(name: str) -> tuple[str, str]:
    """Returns (key, ending): the name before and after the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    stem, _, ending = last.partition(".")
    return folder + slash + stem, ending.lower()


class Joiner:
    """The window of members: takes members in the order of the tar, and yields records in the order of the images."""

    def __init__(self, keep_columns: tuple[str, ...], rules: int = RULES) -> None:
        self.num_images = 0
        self._keep_columns = keep_columns
        self._rules = rules
        # Each member with its sample, and the number of images that had left the sample when the member came.
        self._waiting: deque[tuple[Member, _Sample, int]] = deque()
        self._waiting_bytes = 0
        self._newest_image: Member | None = None
        self._samples: dict[str, _Sample] = {}
        self._keys: set[str] = set()
        self._row = 0
        self._ignored = 0
        self._passed_over = Counter[str]()
        # Hashes of the keys of samples whose image, or whose sidecar without an image, has been seen. Hashes are enough
        # for a count, and take less memory.
        self._with_image: set[int] = set()
        self._lonely = Counter[int]()

    def add(self, member: Member) -> Iterator[Record]:
        """Takes the next member; yields the images that leave the window to make room for it."""
        if not member.is_image and member.data is None:
            self._ignored += 1
            if member.ending is not None:
                self._passed_over[member.ending] += 1
                if len(self._passed_over) > _MAX_LONELY:
                    self._passed_over = Counter(add_up([self._passed_over]))
            return
        key, ending = _split(member.name)
        sample = self._samples.get(key)
        if sample is None or member.name in sample.names:
            sample = self._samples[key] = _Sample()
        sample.names.add(member.name)
        sample.num_waiting += 1
        if member.is_image:
            sample.num_images += 1
            self.num_images += 1
            self._newest_image = member
            self._with_image.add(hash(key))
            self._count_late(self._lonely.pop(hash(key), 0))
        elif member.data is not None:
            sample.sidecars[ending] = member.data
        self._waiting.append((member, sample, sample.num_yielded))
        self._waiting_bytes += len(member.data or b"")
        # The newest image stays however large it is: the sidecars right behind it are still to come.
        while len(self._waiting) > WINDOW_MEMBERS or (
            self._waiting_bytes > WINDOW_BYTES and self._waiting[0][0] is not self._newest_image
        ):
            yield from self._leave()

    def flush(self) -> Iterator[Record]:
        """Yields the images that are left in the window."""
        while self._waiting:
            yield from self._leave()

    def take_ignored(self) -> int:
        """Returns the number of members that were passed over since the last call."""
        ignored, self._ignored = self._ignored, 0
        return ignored

    def take_passed_over(self) -> tuple[tuple[str, int], ...]:
        """Returns the numbers of members by ending that were passed over since the last call, in the order of endings.

        Sidecars that miss their image are counted as `LATE_SIDECARS`.
        """
        counts, self._passed_over = add_up([self._passed_over]), Counter()
        return tuple(counts.items())

    def _leave(self) -> Iterator[Record]:
        member, sample, num_yielded = self._waiting.popleft()
        self._waiting_bytes -= len(member.data or b"")
        key, ending = _split(member.name)
        sample.num_waiting -= 1
        if sample.num_waiting == 0 and self._samples.get(key) is sample:
            del self._samples[key]
        if member.is_image:
            sample.num_yielded += 1
            yield self._record(member, sample)
        elif sample.num_images == 0:  # the sidecar has met no image in the window
            sample.sidecars.pop(ending, None)
            self._ignored += 1
            if hash(key) in self._with_image:
                self._count_late(1)
            elif len(self._lonely) < _MAX_LONELY:
                self._lonely[hash(key)] += 1
        elif num_yielded == sample.num_images:  # all images of the sample had left before the sidecar came
            self._count_late(1)

    def _count_late(self, number: int) -> None:
        if number:
            self._passed_over[LATE_SIDECARS] += number

    def _record(self, member: Member, sample: _Sample) -> Record:
        key = member.name
        while key in self._keys or (self._rules != FIRST_RULES and _LOST_KEY.fullmatch(key)):
            key = f"{key}@{self._row}"
        self._keys.add(key)
        self._row += 1
        fields = _json_fields(sample.sidecars.get("json"))
        return Record(
            key=key,
            data=member.data,
            true_label=self._label(member.name, sample.sidecars, fields),
            kept=tuple(_kept(column, sample.sidecars, fields) for column in self._keep_columns),
            failure=member.failure,
            ignored=self.take_ignored(),
            passed_over=self.take_passed_over(),
        )

    def _label(self, name: str, sidecars: dict[str, bytes], fields: dict[str, Any]) -> str | None:
        if self._rules == FIRST_RULES:
            values = [fields.get(field) for field in _FIRST_LABEL_FIELDS]
            return _sidecar_label(
                sidecars, [as_text(value) for value in values if isinstance(value, str | int | float)]
            )
        found = _sidecar_label(sidecars, [label_text(fields[field]) for field in _label_fields(fields)])
        return found or class_folder(name)


def _json_fields(sidecar: bytes | None) -> dict[str, Any]:
    """Returns the fields of a JSON sidecar; no fields if the sidecar is missing, broken or not a JSON object."""
    try:
        fields = json.loads(sidecar or b"{}")
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _sidecar_text(sidecars: dict[str, bytes], ending: str) -> str | None:
    text = as_text(sidecars.get(ending))
    return None if text is None else text.removeprefix("\ufeff").strip()


def _label_fields(fields: Iterable[str]) -> list[str]:
    """Returns the fields that may hold the label, the likeliest first, as `LABEL_NAMES` says."""
    known = [field for field in fields if field.lower() in LABEL_NAMES]
    return sorted(known, key=lambda field: (not field.islower(), LABEL_NAMES.index(field.lower())))


def _sidecar_label(sidecars: dict[str, bytes], from_json: list[str | None]) -> str | None:
    return next((text for text in (_sidecar_text(sidecars, "cls"), *from_json) if text), None)


def _kept(column: str, sidecars: dict[str, bytes], fields: dict[str, Any]) -> str | None:
    if fields.get(column) is not None:
        return as_text(fields[column])
    return _sidecar_text(sidecars, "txt" if column == "caption" else column)
