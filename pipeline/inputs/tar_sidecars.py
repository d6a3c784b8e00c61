"""Joins the images of a tar with the labels and captions beside them, in bounded memory.

Members form a sample if their paths are equal up to the first dot of the last part, such as `a/7.left.jpg`,
`a/7.right.jpg`, `a/7.cls` and `a/7.json` (WebDataset's rule). The members of a sample may stand in any order and apart
from each other, but must meet in a window of members, which slides over the tar. An image is yielded when it leaves the
window. A name that comes again begins another sample, as in a tar that was joined from several tars.
"""

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.chunks.failures import Failure
from pipeline.inputs.record import Record, as_text

WINDOW_MEMBERS = 256
WINDOW_BYTES = 32 * 2**20
MAX_SIDECAR_BYTES = 2**20

_SIDECAR_ENDINGS = frozenset(("cls", "json", "txt"))
_LABEL_FIELDS = ("label", "cls", "class")


@dataclass(slots=True, kw_only=True)
class Member:
    """One member of a tar: an image or the failure in its place, a sidecar, or (without data) a member passed over."""

    name: str
    is_image: bool = False
    data: bytes | None = None
    failure: Failure | None = None


@dataclass(slots=True)
class _Sample:
    """Members of one sample that were seen so far, and how many of them are still in the window."""

    names: set[str] = field(default_factory=set)
    sidecars: dict[str, bytes] = field(default_factory=dict)
    num_images: int = 0
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

    def __init__(self, keep_columns: tuple[str, ...]) -> None:
        self.num_images = 0
        self._keep_columns = keep_columns
        self._waiting: deque[tuple[Member, _Sample]] = deque()
        self._waiting_bytes = 0
        self._newest_image: Member | None = None
        self._samples: dict[str, _Sample] = {}
        self._keys: set[str] = set()
        self._row = 0
        self._ignored = 0

    def add(self, member: Member) -> Iterator[Record]:
        """Takes the next member; yields the images that leave the window to make room for it."""
        if not member.is_image and member.data is None:
            self._ignored += 1
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
        elif member.data is not None:
            sample.sidecars[ending] = member.data
        self._waiting.append((member, sample))
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

    def _leave(self) -> Iterator[Record]:
        member, sample = self._waiting.popleft()
        self._waiting_bytes -= len(member.data or b"")
        key, ending = _split(member.name)
        sample.num_waiting -= 1
        if sample.num_waiting == 0 and self._samples.get(key) is sample:
            del self._samples[key]
        if member.is_image:
            yield self._record(member, sample)
        elif sample.num_images == 0:  # the sidecar has met no image in the window
            sample.sidecars.pop(ending, None)
            self._ignored += 1

    def _record(self, member: Member, sample: _Sample) -> Record:
        key = member.name
        while key in self._keys:
            key = f"{key}@{self._row}"
        self._keys.add(key)
        self._row += 1
        fields = _json_fields(sample.sidecars.get("json"))
        return Record(
            key=key,
            data=member.data,
            true_label=_label(sample.sidecars, fields),
            kept=tuple(_kept(column, sample.sidecars, fields) for column in self._keep_columns),
            failure=member.failure,
            ignored=self.take_ignored(),
        )


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


def _label(sidecars: dict[str, bytes], fields: dict[str, Any]) -> str | None:
    candidates = (fields.get(name) for name in _LABEL_FIELDS)
    scalars = (as_text(value) for value in candidates if isinstance(value, str | int | float))
    return next((text for text in (_sidecar_text(sidecars, "cls"), *scalars) if text), None)


def _kept(column: str, sidecars: dict[str, bytes], fields: dict[str, Any]) -> str | None:
    if fields.get(column) is not None:
        return as_text(fields[column])
    return _sidecar_text(sidecars, "txt" if column == "caption" else column)
