"""Names in the output folder, and what a listing of them says about each shard."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

DATA = "data"
RUNS = "runs"
JOB_FILE = "_job.json"
INDEX_FILE = "_index.parquet"
PLAN_FILE = "plan.parquet"
REPORT_FILE = "report.json"

_SLICE_NAME = re.compile(r"(?P<name>.*)-(?P<hash16>[0-9a-f]{16})-(?P<slice>\d{5,})(?P<end>-end)?\.parquet")


def hash16(text: str) -> str:
    """The first 16 hex digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def readable_name(text: str) -> str:
    """A shard's name as it may stand in a file name: without its ending, at most 64 plain characters."""
    stem = re.sub(r"\.(tar\.gz|tgz|tar|parquet)$", "", text, flags=re.IGNORECASE)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem)[:64].strip("._-") or "shard"


@dataclass(frozen=True, slots=True)
class SliceName:
    """The name of an output file: which slice of which shard, and whether it is the shard's last."""

    name: str
    hash16: str
    slice: int
    end: bool

    def __str__(self) -> str:
        return f"{self.name}-{self.hash16}-{self.slice:05d}{'-end' if self.end else ''}.parquet"

    @staticmethod
    def parse(file_name: str) -> "SliceName | None":
        """The parts of a file name; None if it is none of ours."""
        match = _SLICE_NAME.fullmatch(file_name)
        if match is None:
            return None
        return SliceName(match["name"], match["hash16"], int(match["slice"]), match["end"] is not None)


@dataclass(slots=True)
class ShardState:
    """Which slices of one shard are published."""

    slices: set[int] = field(default_factory=set)
    end: int | None = None

    @property
    def complete(self) -> bool:
        """True if the last slice and every slice before it are there."""
        return self.end is not None and len(self.slices) == self.end + 1

    def describe(self) -> str:
        """One clause for a message."""
        last = "the last slice is not there" if self.end is None else f"the last slice is {self.end}"
        return f"{len(self.slices)} slices published, {last}"


def shard_states(file_names: Iterable[str]) -> dict[str, ShardState]:
    """What a listing of `data/` says about each shard, by hash16; names that are not ours are passed over."""
    states: dict[str, ShardState] = {}
    for file_name in file_names:
        if (parsed := SliceName.parse(file_name)) is not None:
            state = states.setdefault(parsed.hash16, ShardState())
            state.slices.add(parsed.slice)
            if parsed.end:
                state.end = parsed.slice
    return states
