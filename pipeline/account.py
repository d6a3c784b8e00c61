"""The accounts: what every published slice says of itself, summed; and the proof that nothing is missing."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

from pipeline.layout import ShardState


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
        seconds: busy seconds by step, summed over all processes.
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

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(
            listed=self.listed + other.listed,
            ok=self.ok + other.ok,
            failed=self.failed + other.failed,
            failed_by_code=_add(self.failed_by_code, other.failed_by_code),
            ignored=self.ignored + other.ignored,
            bytes=self.bytes + other.bytes,
            pixels=self.pixels + other.pixels,
            macs=self.macs + other.macs,
            files=self.files + other.files,
            seconds=_add(self.seconds, other.seconds),
        )


def _add(a: Mapping[str, float], b: Mapping[str, float]) -> dict:
    return {key: a.get(key, 0) + b.get(key, 0) for key in sorted({*a, *b})}


@dataclass(frozen=True, kw_only=True)
class Footer:
    """What an output file says of itself: the JSON under the footer key `pvtv2`.

    Attributes:
        shard: canonical URI of the source; with `hash16` and `slice` it says which records the file holds.
        end: True for the last slice of the shard.
        source_etag: ETag of the source that was read; None for loose files, whose rows have their own.
        first_row, last_row: indexes in the shard; `last_row = first_row - 1` in an empty file.
        identity: digest of the output's identity.
        nonce: makes the bytes, and so the ETag, of every attempt its own.
        totals: counts and work of the rows inside.
    """

    shard: str
    hash16: str
    slice: int
    end: bool
    source_etag: str | None
    first_row: int
    last_row: int
    identity: str
    run_id: str
    attempt: str
    nonce: str
    totals: Totals

    def to_json(self) -> str:
        """The footer as it is stored."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str | bytes) -> "Footer":
        """The footer as it was stored.

        Raises:
            ValueError: the text is not a footer of ours.
        """
        try:
            values = json.loads(text)
            return Footer(**{**values, "totals": Totals(**values["totals"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a footer: {error}") from error


def missing_slices(shards: Iterable[tuple[str, int | None]], states: Mapping[str, ShardState]) -> list[str]:
    """One sentence for each planned shard that is not whole.

    Args:
        shards: (hash16, number of records if the plan knows it) of each planned shard.
        states: what the listing of the output holds, by hash16.
    """
    return [
        f"{hash16}: {states[hash16].describe() if hash16 in states else 'nothing published'}"
        for hash16, _ in shards
        if hash16 not in states or not states[hash16].complete
    ]


def discrepancies(shards: Iterable[tuple[str, int | None]], footers: Iterable[Footer]) -> list[str]:
    """One sentence for each way in which the published files do not add up; empty if they do.

    Checked for every planned shard: its slices follow one another without gap or overlap from row 0; each file's rows
    are its `ok + failed`; where the plan knows how many records there are, so many are published.
    """
    found = []
    by_shard: dict[str, list[Footer]] = {}
    for footer in footers:
        by_shard.setdefault(footer.hash16, []).append(footer)
    for hash16, num_records in shards:
        next_row = 0
        for footer in sorted(by_shard.get(hash16, []), key=lambda f: f.slice):
            where = f"{footer.shard} slice {footer.slice}"
            totals = footer.totals
            if footer.first_row != next_row:
                found.append(f"{where} begins at row {footer.first_row}, expected {next_row}")
            if not footer.last_row - footer.first_row + 1 == totals.listed == totals.ok + totals.failed:
                found.append(
                    f"{where} spans {footer.last_row - footer.first_row + 1} rows but lists {totals.listed} "
                    f"= {totals.ok} ok + {totals.failed} failed"
                )
            next_row = footer.last_row + 1
        if num_records is not None and next_row != num_records:
            found.append(f"shard {hash16} has {num_records} records but {next_row} published rows")
    return found
