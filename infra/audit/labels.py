"""The labels that came with images, read from the sources again: sidecars of tars, and the folders of images.

A sidecar belongs to the images of its sample, whose paths are equal up to the first dot of their last part. The job
joins the members of a sample only if they stand near each other. The audit knows the label of an image if all members
of its sample stand clearly near, or if its sample has no sidecar; other labels are not known.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from infra.audit.ids import FIRST_RULES

MAX_SIDECAR_BYTES = 2**20
"""Number of bytes of a sidecar from which on the job passes it over."""

# The job joins within 256 members and 32 MiB. The audit counts passed-over members and headers too, so it stays below.
_NEAR_MEMBERS = 250
_NEAR_BYTES = 31 * 2**20
_SIDECARS = ("cls", "json", "txt")
_FIRST_FIELDS = ("label", "cls", "class")
LABEL_NAMES = ("label", "cls", "class", "labels", "category")
"""Names of columns and fields with labels, the likeliest first."""


@dataclass(slots=True)
class Sample:
    """The members of one sample of a tar.

    Attributes:
        cls, from_json: Labels in the sidecars; None without such a sidecar or label.
        is_clear: False if members stand too far from each other to say what the job joins.
        has_sidecars: True if the sample has a `.cls` or a `.json`.
    """

    first_member: int
    first_byte: int
    cls: str | None = None
    from_json: str | None = None
    is_clear: bool = True
    has_sidecars: bool = False
    names: set[str] = field(default_factory=set)

    def label(self, name: str, rules: int) -> tuple[str | None, bool]:
        """Returns (label of the image of this name, whether the label is known); ask after the last member."""
        folder = None if rules == FIRST_RULES else class_folder(name)
        return self.cls or self.from_json or folder, self.is_clear or not self.has_sidecars


class Samples:
    """The samples of one tar, found member by member."""

    def __init__(self, rules: int) -> None:
        self._rules = rules
        self._samples: dict[str, Sample] = {}

    def add(self, name: str, member: int, byte: int) -> Sample:
        """Returns the sample of an image or sidecar.

        Args:
            name: Name of the member.
            member: Number of the member in the tar.
            byte: Offset of the member in the tar, without compression.
        """
        key = _split(name)[0]
        sample = self._samples.get(key)
        if sample is None or name in sample.names:
            sample = self._samples[key] = Sample(member, byte)
        sample.names.add(name)
        if member - sample.first_member > _NEAR_MEMBERS or byte - sample.first_byte > _NEAR_BYTES:
            sample.is_clear = False
        return sample

    def add_sidecar(self, name: str, member: int, byte: int, content: bytes | None) -> None:
        """Notes a sidecar; None stands for content that the audit does not read."""
        sample, ending = self.add(name, member, byte), _split(name)[1]
        if ending == "txt":
            return
        sample.has_sidecars = True
        if content is None:
            sample.is_clear = False
        elif ending == "cls":
            sample.cls = content.decode("utf-8", "backslashreplace").removeprefix("\ufeff").strip() or None
        else:
            sample.from_json = _label_in_json(content, self._rules)


def is_sidecar(name: str) -> bool:
    """Returns True for the names of sidecars."""
    return _split(name)[1] in _SIDECARS


def class_folder(name: str) -> str | None:
    """Returns the folder of a member or a loose image; None for no folder, and for `..`."""
    parts = [part for part in name.split("/")[:-1] if part not in ("", ".")]
    return parts[-1] if parts and parts[-1] != ".." else None


def loose_label(uri: str, roots: Iterable[str], rules: int) -> tuple[str | None, bool]:
    """Returns (folder of a loose image, whether the label is known).

    The label is not known if the image lies directly in one input and in a folder of another: the run had one of both.
    """
    below = [uri[len(root) :].lstrip("/") if uri != root else "" for root in roots]
    if rules == FIRST_RULES:
        folders = {name.rpartition("/")[0].rpartition("/")[2] or None for name in below}
    else:
        folders = {class_folder(name) for name in below}
    return next(iter(folders)), len(folders) == 1


def _split(name: str) -> tuple[str, str]:
    folder, slash, last = name.rpartition("/")
    stem, _, ending = last.partition(".")
    return folder + slash + stem, ending.lower()


def _label_in_json(content: bytes, rules: int) -> str | None:
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    if rules == FIRST_RULES:
        values = [fields.get(name) for name in _FIRST_FIELDS]
        texts: list[str | None] = [_text(value) for value in values if isinstance(value, str | int | float)]
    else:
        texts = [_label_text(fields[name]) for name in by_likelihood(fields)]
    return next((text for text in texts if text), None)


def by_likelihood(names: Iterable[str]) -> list[str]:
    """Returns the names of columns or fields that hold labels: lower case first, then by `LABEL_NAMES`."""
    known = [name for name in names if name.lower() in LABEL_NAMES]
    return sorted(known, key=lambda name: (not name.islower(), LABEL_NAMES.index(name.lower())))


def _label_text(value: Any) -> str | None:
    if value is None or isinstance(value, list | dict) or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and abs(value) < 2**53 and value.is_integer():
        return str(int(value))
    return _text(value)


def _text(value: str | float) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "backslashreplace").decode()
