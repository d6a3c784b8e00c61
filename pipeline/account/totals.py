"""The accounts: what every published slice says of itself, and how such statements are summed."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field


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
            counts=_add(self.counts, other.counts),
        )


def _add(a: Mapping[str, float], b: Mapping[str, float]) -> dict:
    return {key: a.get(key, 0) + b.get(key, 0) for key in sorted({*a, *b})}


@dataclass(frozen=True, kw_only=True)
class Footer:
    """What an output file says of itself: the JSON under the footer key `pvtv2`.

    Attributes:
        shard: canonical URI of the source; with `hash16` and `slice` it says which records the file holds.
        end: True for the last slice of the shard.
        source_etag: version of the source that was read: an object's ETag, for loose files `version_of` their own. In
            an emptied file the version that may fill it again; None: none may.
        first_row, last_row: indexes in the shard; `last_row = first_row - 1` in an empty file.
        pruned: indexes between these two that have no row, since their source is gone.
        emptied: the file keeps its name taken and holds nothing; it is no part of the shard's slices.
        identity: digest of the output's identity.
        nonce: makes the bytes, and so the ETag, of every attempt its own.
        totals: counts and work of the rows inside.
        own: what the run that wrote the file did itself, where it exchanged some rows of an older file; else None.
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
    pruned: tuple[int, ...] = ()
    emptied: bool = False
    own: Totals | None = None

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
            own = values.get("own")
            return Footer(
                **{
                    **values,
                    "totals": Totals(**values["totals"]),
                    "pruned": tuple(values.get("pruned", ())),
                    "own": None if own is None else Totals(**own),
                }
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not a footer: {error}") from error
