"""What the lease object says: which run holds an output, since when, and when it was last heard of."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pipeline.errors import OutputError
from pipeline.lease.holder import Holder
from pipeline.output.layout import LEASE_FILE
from pipeline.store.errors import ChangedError
from pipeline.store.storage import StoreConfig, head, read
from pipeline.store.uris import join_uri, shown

State = Literal["held", "released"]

# Reads that meet a renewal in a row, after which it is no renewal.
_MAX_READS = 20


@dataclass(frozen=True, kw_only=True)
class LeaseRecord:
    """The object's content.

    Attributes:
        holding: one holder's one time of holding; the same over all renewals.
        nonce: of this one write.
        since, renewed_at: by the holder's clock, with a time zone.
        expires_after_s: seconds without renewal after which the holder stops writing by itself.
    """

    state: State
    holding: str
    nonce: str
    run_id: str
    holder: Holder
    since: datetime
    renewed_at: datetime
    expires_after_s: float

    def __str__(self) -> str:
        return f"run {self.run_id} ({self.holder}) since {clock_text(self.since)}"

    def renewed_lately(self) -> bool:
        """True if it was renewed within its time, as far as the clocks of two machines tell."""
        return abs(datetime.now(UTC) - self.renewed_at) <= timedelta(seconds=self.expires_after_s)

    def to_json(self) -> bytes:
        """The object's bytes."""
        times = {"since": self.since.isoformat(), "renewed_at": self.renewed_at.isoformat()}
        return json.dumps(asdict(self) | times, indent=1).encode()

    @staticmethod
    def from_json(body: bytes) -> "LeaseRecord":
        """The reverse; fields that a later version added are passed over.

        Raises:
            KeyError, TypeError, ValueError: the bytes are no lease.
        """
        fields = json.loads(body)
        if fields["state"] not in ("held", "released") or not 0 < float(fields["expires_after_s"]) < float("inf"):
            raise ValueError("state or expires_after_s is none")
        return LeaseRecord(
            state=fields["state"],
            holding=str(fields["holding"]),
            nonce=str(fields["nonce"]),
            run_id=str(fields["run_id"]),
            holder=Holder.from_dict(fields["holder"]),
            since=_with_zone(fields["since"]),
            renewed_at=_with_zone(fields["renewed_at"]),
            expires_after_s=float(fields["expires_after_s"]),
        )


def read_record(output: str, store: StoreConfig, etag: str | None = None) -> LeaseRecord:
    """What the output's lease says.

    Raises:
        NotFoundError, ChangedError: there is none, or not in this version.
        OutputError: the object under that name is no lease.
    """
    uri = join_uri(output, LEASE_FILE)
    body = read(uri, store, etag)
    try:
        return LeaseRecord.from_json(body)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise OutputError(
            f"{shown(uri)} is no lease ({type(error).__name__}: {error}); if no run is under way, remove it"
        ) from None


def find_lease(output: str, store: StoreConfig) -> tuple[LeaseRecord, str] | None:
    """What the output's lease says, and the ETag of what said it; None if there never was one.

    Raises:
        OutputError: the object under that name is no lease.
        StoreError: the store does not answer.
    """
    uri = join_uri(output, LEASE_FILE)
    for _ in range(_MAX_READS):
        info = head(uri, store)
        if info is None:
            return None
        try:
            return read_record(output, store, info.etag), info.etag
        except ChangedError:
            continue  # renewed in between
    raise OutputError(f"{shown(uri)} changes faster than it can be read")


def clock_text(moment: datetime) -> str:
    """A moment for people, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _with_zone(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
