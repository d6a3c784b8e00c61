"""Names in the output folder, and the short digests in these names and in footers."""

import hashlib
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass

DATA = "data"
RUNS = "runs"
CALIBRATION = "calibration"
JOB_FILE = "_job.json"
LEASE_FILE = "_lease.json"
INDEX_FILE = "_index.parquet"
PLAN_FILE = "plan.parquet"
REPORT_FILE = "report.json"
TIMELINE_FILE = "timeline.parquet"
PAGE_FILE = "report.html"

_SLICE_NAME = re.compile(r"(?P<name>.*)-(?P<hash16>[0-9a-f]{16})-(?P<slice>\d{5,})(?P<end>-end)?\.parquet")


def new_run_id(started_at: float) -> str:
    """Returns a name for the folder of a run: the time of its start, so that names sort, and a random part."""
    return time.strftime("%Y%m%dT%H%M%SZ-", time.gmtime(started_at)) + secrets.token_hex(2)


def hash16(text: str) -> str:
    """Returns the first 16 hex digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def version_of(members: Iterable[tuple[str, str | None]]) -> str:
    """Returns the version of a slice of loose files: 32 hex digits of the SHA-256 of their URIs and ETags, in order."""
    text = "".join(f"{uri}\n{etag or ''}\n" for uri, etag in members)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def readable_name(text: str) -> str:
    """Returns the name of a shard for use in a file name: without its ending, at most 64 plain characters."""
    stem = re.sub(r"\.(tar\.gz|tgz|tar|parquet)$", "", text, flags=re.IGNORECASE)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem)[:64].strip("._-") or "shard"


@dataclass(frozen=True, slots=True)
class SliceName:
    """The name of an output file.

    Attributes:
        name: Readable name of the shard.
        hash16: Digest of the shard's URI.
        slice: Number of the slice in the shard.
        end: True for the last slice of the shard.
    """

    name: str
    hash16: str
    slice: int
    end: bool

    def __str__(self) -> str:
        return f"{self.name}-{self.hash16}-{self.slice:05d}{'-end' if self.end else ''}.parquet"

    @staticmethod
    def parse(file_name: str) -> "SliceName | None":
        """Returns the parts of a file name; None if the name is not that of an output file."""
        match = _SLICE_NAME.fullmatch(file_name)
        if match is None:
            return None
        return SliceName(match["name"], match["hash16"], int(match["slice"]), match["end"] is not None)
