"""The footer of an output file: the records that the file holds, and the sums of its rows."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.account.totals import Totals

_PASSED_OVER = "passed_over "
"""Beginning of the names under which the `counts` of a footer hold the numbers of `Totals.passed_over`."""


@dataclass(frozen=True, kw_only=True)
class Footer:
    """The description of an output file, stored as JSON under the Parquet metadata key `pvtv2`.

    Attributes:
        shard: Canonical URI of the source.
        hash16: Digest of the shard's URI.
        slice: Number of the slice in the shard.
        end: True for the last slice of the shard.
        source_etag: Version of the source that was read: the ETag of an object, or `version_of` the URIs and ETags of
            loose files. In an emptied file, the version that may fill the file again; None if no version may.
        first_row: Index in the shard of the first row.
        last_row: Index in the shard of the last row; `first_row - 1` in an empty file.
        identity: Digest of the output's identity.
        run_id: Run that wrote the file.
        attempt: Attempt of the read task that made the rows.
        nonce: Random text that makes the bytes, and so the ETag, of every attempt different.
        totals: Counts and work of the rows in the file.
        pruned: Indexes from `first_row` to `last_row` without a row in the file, since the source of the row is gone or
            belongs to an older group.
        emptied: True if the file only keeps its name in use: it has no rows and is not part of the shard's slices.
        own: Counts and work of the run that wrote the file, if that run replaced some rows of an older file; else None.
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
        """Returns the footer as JSON.

        An empty `failed_by_bug` is left out, as in files of versions that did not have this field. The numbers of
        `passed_over` stand among the `counts`, where versions that do not have the field read them as further counts.
        """
        values = asdict(self)
        for totals in (values["totals"], values["own"]):
            if totals is None:
                continue
            if not totals["failed_by_bug"]:
                del totals["failed_by_bug"]
            totals["counts"].update((_PASSED_OVER + name, number) for name, number in totals.pop("passed_over").items())
        return json.dumps(values, sort_keys=True)

    @staticmethod
    def from_json(text: str | bytes) -> "Footer":
        """Returns the footer in a JSON text that `to_json` made.

        Raises:
            ValueError: The text is not a footer.
        """
        try:
            values = json.loads(text)
            own = values.get("own")
            return Footer(
                **{
                    **values,
                    "totals": _totals(values["totals"]),
                    "pruned": tuple(values.get("pruned", ())),
                    "own": None if own is None else _totals(own),
                }
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not a footer: {error}") from error


def _totals(values: dict[str, Any]) -> Totals:
    counts = dict(values.get("counts", {}))
    passed_over = {name: counts.pop(name) for name in list(counts) if name.startswith(_PASSED_OVER)}
    return Totals(
        **{
            **values,
            "counts": counts,
            "passed_over": {name.removeprefix(_PASSED_OVER): number for name, number in passed_over.items()},
        }
    )
