"""The progress of a run: rows that arrived at the collectors, rows that are published, and the share of work done."""

from dataclasses import dataclass, field

from pipeline.account.totals import Totals


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The progress of a run at one moment.

    Attributes:
        arrived: Sums over the rows that arrived at the collectors, each chunk counted once. Rows of unfinished slices
            have arrived and are not published yet.
        published: Sums over the rows in files of this run.
        replayed_chunks: Number of chunks that arrived a second time and were dropped.
        total: Number of records to process; None if the number of records in some tars is not known.
        share: Share of the work that is done (`share_done`); None if there is no work to do.
        first_row_at: `time.time()` at the arrival of the first chunk; None before the first chunk.
    """

    arrived: Totals = field(default_factory=Totals)
    published: Totals = field(default_factory=Totals)
    replayed_chunks: int = 0
    total: int | None = None
    share: float | None = None
    first_row_at: float | None = None


def share_done(arrived: Totals, planned_bytes: int, planned_macs: float | None) -> float | None:
    """Returns the share of a run's multiply-accumulates that are done; None if there is nothing to do.

    The remaining work is estimated in two ways: from a sample of the inputs, and from the multiply-accumulates for each
    encoded byte so far. The weight of the second estimate grows with the share of bytes that arrived. Tars and Parquet
    files hold bytes besides images, so that the share ends somewhat below 1.

    Args:
        planned_bytes: Bytes of all inputs.
        planned_macs: Multiply-accumulates of all inputs, estimated from the sample; None if there is no sample (yet).
            With None, the function returns the share of the bytes that arrived.
    """
    if not planned_bytes:
        return None
    by_bytes = min(1.0, arrived.bytes / planned_bytes)
    if planned_macs is None or not arrived.macs or not by_bytes:
        return by_bytes
    left_by_sample = max(0.0, planned_macs - arrived.macs)
    left_by_bytes = arrived.macs * (1 - by_bytes) / by_bytes
    left = (1 - by_bytes) * left_by_sample + by_bytes * left_by_bytes
    return arrived.macs / (arrived.macs + left)
