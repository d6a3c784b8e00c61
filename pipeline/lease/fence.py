"""The check before each write that this run still holds the output."""

from dataclasses import dataclass

from pipeline.errors import LeaseLostError, OutputError
from pipeline.lease.record import read_record
from pipeline.store.errors import NotFoundError, StoreError
from pipeline.store.store_path import StorePath


@dataclass(frozen=True, kw_only=True)
class Fence:
    """The part of a lease that a writing process needs; it can be pickled.

    Attributes:
        output: The output folder.
        holding: Random text that this run chose for its lease, see `LeaseRecord`.
    """

    output: StorePath
    holding: str

    def check(self) -> None:
        """Checks that the run still holds the lease, by one small read.

        Raises:
            LeaseLostError: Another run holds the lease, the lease was removed or given back, or the lease cannot be
                read.
        """
        try:
            record = read_record(self.output)
        except NotFoundError:
            raise lease_lost(self.output, "was removed") from None
        except (StoreError, OutputError) as error:
            raise lease_lost(self.output, f"could not be read: {error}") from None
        if record.holding != self.holding:
            raise lease_lost(self.output, f"went to {record}")
        if record.state != "held":
            raise lease_lost(self.output, "was given back")


def lease_lost(output: StorePath, event: str) -> LeaseLostError:
    """Returns the error for a lost lease.

    Args:
        event: Verb that says how the lease was lost, such as `was removed`.
    """
    return LeaseLostError(
        f"this run stopped writing, since its lease on {output.shown} {event}; the rows published so far are whole, "
        "the same command continues"
    )
