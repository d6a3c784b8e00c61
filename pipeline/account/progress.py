"""How far a run is: what has arrived at the collectors, what is published, and which part of the work that is."""

from dataclasses import dataclass, field

from pipeline.account.totals import Totals


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands.

    Attributes:
        arrived: what has come to the collectors, replays apart; ahead of what is published by unfinished slices.
        published: what lies in files of this run.
        replayed_chunks: chunks that came a second time, and were dropped.
        total: records to do; None where tars hide how many they hold.
        share: of the work that is done; None if there is none to do. See `share_done`.
        first_row_at: `time.time()` of the first chunk; None before it.
    """

    arrived: Totals = field(default_factory=Totals)
    published: Totals = field(default_factory=Totals)
    replayed_chunks: int = 0
    total: int | None = None
    share: float | None = None
    first_row_at: float | None = None


def share_done(arrived: Totals, planned_bytes: int, planned_macs: float | None) -> float | None:
    """Which part of a run's work is done, in multiply-accumulates; None if there is nothing to do.

    What is left is told by a sample of the inputs in the beginning, and more and more by what the images so far took
    for each encoded byte. Tars and Parquet have bytes besides images, so that it ends somewhat below 1.

    Args:
        planned_bytes: of all inputs.
        planned_macs: what the sample comes to; None if there is none (yet): then bytes alone tell.
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
