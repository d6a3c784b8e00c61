"""The sums that every published slice carries, and their total."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pipeline.account.sums import add_fields
from pipeline.chunks.passed_over import add_up


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Sums over the records of some slices.

    Attributes:
        listed: Number of records in the slices; always `ok + failed`.
        ok: Number of records that did not fail.
        failed: Number of records that failed.
        failed_by_code: Number of failed records by `error_code`.
        failed_by_bug: Number of records that failed because of a bug, by file and line of the bug.
        ignored: Number of names inside the shards that were skipped.
        passed_over: Number of these names by ending, see `pipeline.chunks.passed_over`.
        bytes: Encoded bytes of all records that were read.
        pixels: Pixels that the network saw: `net_width * net_height` of the rows that are ok.
        macs: Multiply-accumulates of the network for the rows that are ok.
        files: Number of output files.
        seconds: Busy seconds by step, summed over all processes. The steps are those of `measures.SECONDS` and the
            collector's steps.
        counts: Counts by name: the names of `measures.COUNTS`, `chunks` and `bytes_out`.
    """

    listed: int = 0
    ok: int = 0
    failed: int = 0
    failed_by_code: Mapping[str, int] = field(default_factory=dict)
    failed_by_bug: Mapping[str, int] = field(default_factory=dict)
    ignored: int = 0
    passed_over: Mapping[str, int] = field(default_factory=dict)
    bytes: int = 0
    pixels: int = 0
    macs: int = 0
    files: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "Totals") -> "Totals":
        total = add_fields(self, other)
        return replace(total, passed_over=add_up([total.passed_over])) if total.passed_over else total
