"""`report.json`: the account of one run, and of the whole output."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pipeline.account import Totals

Status = Literal["done", "stopped", "stalled", "failed"]


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Where the time of a run went.

    Attributes:
        wall: from the start of the program to the report.
        model_load: reading and checking the weights on the driver.
        first_row: from the start of the program to the first row that reached a collector; None if none did.
        steady: from the first row to the last.
        steps: busy seconds of each step, summed over all processes, for the slices this run published.
    """

    wall: float
    model_load: float
    first_row: float | None
    steady: float | None
    steps: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Report:
    """The account of one run.

    Attributes:
        run: what this run's slices hold.
        output: what the whole output holds.
        ignored: names in the inputs that were passed over when they were listed.
        problems: what keeps the accounts from closing; empty when they close.
        reason: why the run ended before its work was done; None if it did not.
        rates: of the run, over its wall time.
        actors: how many of which kind.
        passes: how many passes were needed.
    """

    run_id: str
    status: Status
    identity: Mapping[str, Any]
    run: Totals
    output: Totals
    ignored: int
    problems: tuple[str, ...]
    seconds: Seconds
    actors: Mapping[str, Any]
    versions: Mapping[str, str]
    passes: int
    replayed_chunks: int
    reason: str | None = None

    def rates(self) -> dict[str, float]:
        """Images, megapixels and giga-MACs a second, over the run's wall time."""
        wall = max(self.seconds.wall, 1e-9)
        steady = self.seconds.steady
        return {
            "images_per_s": round(self.run.listed / wall, 3),
            "mpix_per_s": round(self.run.pixels / 1e6 / wall, 3),
            "gmac_per_s": round(self.run.macs / 1e9 / wall, 3),
            "steady_images_per_s": round(self.run.listed / steady, 3) if steady else 0.0,
        }

    def to_dict(self) -> dict[str, Any]:
        """The report as `report.json` holds it."""
        return {
            "run_id": self.run_id,
            "status": self.status,
            "reason": self.reason,
            "run": _totals(self.run, self.ignored),
            "output": _totals(self.output, self.ignored),
            "problems": list(self.problems),
            "seconds": {
                "wall": round(self.seconds.wall, 3),
                "model_load": round(self.seconds.model_load, 3),
                "first_row": _rounded(self.seconds.first_row),
                "steady": _rounded(self.seconds.steady),
                "steps": {step: round(value, 3) for step, value in self.seconds.steps.items()},
            },
            "rates": self.rates(),
            "actors": dict(self.actors),
            "passes": self.passes,
            "replayed_chunks": self.replayed_chunks,
            "versions": dict(self.versions),
            "identity": dict(self.identity),
        }

    def to_json(self) -> bytes:
        """The report as a JSON file."""
        return json.dumps(self.to_dict(), indent=1).encode()


def _totals(totals: Totals, ignored_names: int) -> dict[str, Any]:
    values = asdict(totals)
    del values["seconds"]
    return {**values, "ignored": totals.ignored + ignored_names}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
