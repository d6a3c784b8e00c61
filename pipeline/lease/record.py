"""The record in the lease object: the run that holds an output, and the times of taking and renewing the lease."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pipeline.errors import OutputError
from pipeline.lease.holder import Holder
from pipeline.output.layout import LEASE_FILE
from pipeline.store.errors import ChangedError
from pipeline.store.store_path import StorePath

State = Literal["held", "released"]

# Changes in a row between two requests, after which something other than a renewal must be changing the object.
_MAX_READS = 20


@dataclass(frozen=True, kw_only=True)
class LeaseRecord:
    """The content of the lease object.

    Attributes:
        state: `held`, or `released` after the holder has given the lease back.
        holding: Random text that a run chooses for its lease, and that stays the same in all renewals.
        nonce: Random text that differs in each write.
        run_id: Name of the run.
        holder: Process that holds the lease.
        since: Time at which the lease was taken, by the holder's clock, with a time zone.
        renewed_at: Time of this write, by the holder's clock, with a time zone.
        expires_after_s: Seconds without a renewal after which the holder stops writing by itself.
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
        """Returns True if the last renewal has not expired, as far as the clocks of two machines agree."""
        return abs(datetime.now(UTC) - self.renewed_at) <= timedelta(seconds=self.expires_after_s)

    def to_json(self) -> bytes:
        """Returns the record as JSON, in the bytes of the lease object."""
        times = {"since": self.since.isoformat(), "renewed_at": self.renewed_at.isoformat()}
        return json.dumps(asdict(self) | times, indent=1).encode()

    @staticmethod
    def from_json(body: bytes) -> "LeaseRecord":
        """Returns the record in the bytes of an object; fields of later versions are ignored.

        Raises:
            KeyError, TypeError, ValueError: The bytes are not a lease.
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


def read_record(output: StorePath, etag: str | None = None) -> LeaseRecord:
    """Returns the record in the lease of an output.

    Raises:
        NotFoundError: There is no lease.
        ChangedError: The lease does not have this ETag.
        OutputError: The object under the name is not a lease.
    """
    path = output.join(LEASE_FILE)
    body = path.read(etag)
    try:
        return LeaseRecord.from_json(body)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise OutputError(
            f"{path.shown} is no lease ({type(error).__name__}: {error}); if no run is under way, remove it"
        ) from None


def find_lease(output: StorePath) -> tuple[LeaseRecord, str] | None:
    """Returns the record in the lease of an output and the ETag of the lease; None if there was never a lease.

    Raises:
        OutputError: The object under the name is not a lease.
        StoreError: The store does not answer.
    """
    path = output.join(LEASE_FILE)
    for _ in range(_MAX_READS):
        info = path.head()
        if info is None:
            return None
        try:
            return read_record(output, info.etag), info.etag
        except ChangedError:
            continue  # The holder renewed the lease between the two requests.
    raise OutputError(f"{path.shown} changes faster than it can be read")


def clock_text(moment: datetime) -> str:
    """Returns a time as text for people, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _with_zone(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
