"""The accounts: what every published slice says of itself, and how such statements are summed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.account.sums import add_fields


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Counts and work of some slices.

    Attributes:
        listed: records that the inputs hold there; always `ok + failed`.
        failed_by_code: failed records by `error_code`.
        ignored: names passed over inside the shards.
        bytes: encoded bytes of all records that were read.
        pixels: pixels that the network saw (`net_width * net_height`, rows that are ok).
        macs: multiply-accumulates of the network (rows that are ok).
        files: output files.
        seconds: busy seconds by step, summed over all processes (`measured.SECONDS`, and those of the collector).
        counts: requests, packs and the like (`measured.COUNTS`), chunks, and `bytes_out`.
    """

    listed: int = 0
    ok: int = 0
    failed: int = 0
    failed_by_code: Mapping[str, int] = field(default_factory=dict)
    ignored: int = 0
    bytes: int = 0
    pixels: int = 0
    macs: int = 0
    files: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "Totals") -> "Totals":
        return add_fields(self, other)
