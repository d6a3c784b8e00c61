"""The question before each write: is the output still this run's?"""

from dataclasses import dataclass

from pipeline.errors import LeaseLostError, OutputError
from pipeline.lease.record import read_record
from pipeline.store.errors import NotFoundError, StoreError
from pipeline.store.storage import StoreConfig
from pipeline.store.uris import shown


@dataclass(frozen=True, kw_only=True)
class Fence:
    """What a process that writes needs to know of its run's lease; made to be sent there.

    Attributes:
        output: canonical URI of the output folder.
        holding: the run's time of holding, see `LeaseRecord`.
    """

    output: str
    store: StoreConfig
    holding: str

    def check(self) -> None:
        """Returns if the lease is held as it was when the run took it; one small read.

        Raises:
            LeaseLostError: somebody else holds it, it was given back, or the store does not say in all its patience.
        """
        try:
            record = read_record(self.output, self.store)
        except NotFoundError:
            raise lease_lost(self.output, "was removed") from None
        except (StoreError, OutputError) as error:
            raise lease_lost(self.output, f"could not be read: {error}") from None
        if record.holding != self.holding:
            raise lease_lost(self.output, f"went to {record}")
        if record.state != "held":
            raise lease_lost(self.output, "was given back")


def lease_lost(output: str, what: str) -> LeaseLostError:
    """The error, its sentence made of what became of the lease."""
    return LeaseLostError(
        f"this run stopped writing, since its lease on {shown(output)} {what}; the rows published so far are whole, "
        "the same command continues"
    )
