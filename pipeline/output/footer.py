"""The footer of an output file: which records the file holds, and what its rows add up to."""

import json
from dataclasses import asdict, dataclass

from pipeline.account.totals import Totals


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
