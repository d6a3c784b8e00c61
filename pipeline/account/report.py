"""The report of one run and of the whole output, as `report.json` holds it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from pipeline.account.breakdown import SCORE_BINS, SIZE_BANDS_PX, Breakdown
from pipeline.account.ray_operators import Operators
from pipeline.account.totals import Totals
from pipeline.account.verdict import Verdict
from pipeline.account.work import Work, utilisation
from pipeline.chunks.passed_over import add_up

Status = Literal["done", "stopped", "stalled", "failed"]

_MOST_LABELS = 50


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Seconds of the parts of a run.

    Attributes:
        wall: Seconds from the start of the program to the report.
        model_load: Seconds for which the driver read and checked the weights.
        listing: Seconds for which the driver listed the inputs and made the plan.
        first_row: Seconds from the start of the program until the first row reached a collector; None if no row did.
        steady: Length of the steady part of the run: from the moment when a tenth of the network's work was done to the
            moment when nine tenths of the work were done. None for a run without a steady part.
        drain: Seconds from the end of the network's work to the report; None if the network did no work.
        steps: Busy seconds of each step for the slices that this run published, summed over all processes.
    """

    wall: float
    model_load: float
    listing: float = 0.0
    first_row: float | None
    steady: float | None
    drain: float | None = None
    steps: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Report:
    """The account of one run.

    Attributes:
        run: Sums over the slices that this run published.
        output: Sums over all slices of the output.
        ignored: Number of names that were skipped when the inputs were listed.
        passed_over: Number of these names by ending, see `pipeline.chunks.passed_over`.
        left_out: Number of inputs that the run's bounds left for later runs, by kind.
        size_check: Sizes of some images and of the network, taken before the work; None if they were not taken.
        problems: Sentences that say why the plan and the output do not agree; empty if they agree.
        reason: Reason why the run ended before its work was done; None for a run that finished.
        steady: Work of the steady part of the run; None for a run without a steady part.
        num_actors: Number of infer actors that worked.
        price_per_hour: Price of one actor for an hour, in any currency; None if the user gave no price.
        actors: Device of the actors, and the number of actors that the run might have.
        passes: Number of passes of the run.
        operators: Ray Data's own figures of the passes.
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
    passed_over: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    size_check: Mapping[str, Any] | None = None
    started_at: float = 0.0
    steady: Work | None = None
    num_actors: int = 0
    price_per_hour: float | None = None
    breakdown: Breakdown = field(default_factory=Breakdown)
    processes: Sequence[Mapping[str, Any]] = ()
    verdict: Verdict | None = None
    operators: Operators = field(default_factory=Operators)

    def rates(self) -> dict[str, float]:
        """Returns images, megapixels and giga-MACs per second of wall time, and the steady part's images per second."""
        steady = self.steady.rates()["images_per_s"] if self.steady else 0.0
        return {**self._work(self.seconds.wall).rates(), "steady_images_per_s": steady}

    def model_work(self) -> Work | None:
        """Returns the run's work with the mean seconds that an actor ran the network; None if no network ran."""
        compute_s = self.run.seconds.get("compute", 0.0)
        return self._work(compute_s / self.num_actors) if compute_s > 0 and self.num_actors else None

    def _work(self, seconds: float) -> Work:
        return Work(seconds=seconds, images=self.run.listed, pixels=self.run.pixels, macs=self.run.macs)

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as `report.json` holds it."""
        model = self.model_work()
        return {
            "run_id": self.run_id,
            "started_at": datetime.fromtimestamp(self.started_at, UTC).isoformat(timespec="seconds"),
            "status": self.status,
            "reason": self.reason,
            "run": _totals(self.run, self.ignored, self.passed_over),
            "output": _totals(self.output, self.ignored, self.passed_over),
            "left_out": dict(self.left_out),
            "size_check": None if self.size_check is None else dict(self.size_check),
            "problems": list(self.problems),
            "seconds": _rounded(asdict(self.seconds)),
            "rates": {
                **self.rates(),
                "steady": None if self.steady is None else self.steady.rates(),
                "model": None if model is None else model.rates(),
            },
            "work": self._counts(),
            "efficiency": self._efficiency(),
            "cost": self._cost(),
            "verdict": None if self.verdict is None else asdict(self.verdict),
            **_breakdown_sections(self.breakdown, self.run.failed_by_code),
            "processes": list(self.processes),
            "ray": _rounded(asdict(self.operators)),
            "actors": dict(self.actors),
            "passes": self.passes,
            "replayed_chunks": self.replayed_chunks,
            "versions": dict(self.versions),
            "identity": dict(self.identity),
        }

    def to_json(self) -> bytes:
        """Returns the report as the bytes of a JSON file."""
        return json.dumps(self.to_dict(), indent=1).encode()

    def _counts(self) -> dict[str, Any]:
        counts = dict(self.run.counts)
        capacity = counts.pop("pack_room", 0)
        fill = round(counts.get("tokens", 0) / capacity, 4) if capacity else None
        return {**counts, "pack_fill": fill, "replayed_chunks": self.replayed_chunks}

    def _efficiency(self) -> dict[str, float] | None:
        model = self.model_work()
        peak = self.breakdown.peak_gflops
        used = None if model is None else utilisation(model, self.num_actors, peak)
        return None if used is None else {"peak_gflops": peak, "mfu": round(used, 4)}

    def _cost(self) -> dict[str, Any] | None:
        """Returns the hours of the run's actors and their cost; None for a run without actors."""
        if not self.num_actors:
            return None
        hours = self.num_actors * self.seconds.wall / 3600
        millions = self.run.listed / 1e6
        price = self.price_per_hour
        return {
            "actor_hours": round(hours, 4),
            "gpu_hours": round(hours, 4) if self.actors.get("device") == "cuda" else 0.0,
            "price_per_hour": price,
            "per_million_images": round(hours * price / millions, 4) if price is not None and millions else None,
        }


def _breakdown_sections(breakdown: Breakdown, failed_by_code: Mapping[str, int]) -> dict[str, Any]:
    """Returns the sections of `report.json` about sizes, failures, shards, labels, scores and samples."""
    tops = [*SIZE_BANDS_PX[1:], None]
    bands = zip(SIZE_BANDS_PX, tops, breakdown.bands, strict=True)
    named = sorted(breakdown.labels.items(), key=lambda item: (-item[1], str(item[0])))
    labels = [{"label": label, "images": images} for label, images in named[:_MOST_LABELS]]
    if others := sum(images for _, images in named[_MOST_LABELS:]):
        labels.append({"label": None, "images": others})
    found: dict[str, Any] = {
        "sizes": [{"from_px": low, "to_px": high, **_rounded(asdict(band))} for low, high, band in bands],
        "failures": [
            {
                "code": code,
                "images": images,
                "examples": [
                    {"image_id": image_id, "error_message": message}
                    for image_id, message in breakdown.examples.get(code, ())
                ],
            }
            for code, images in sorted(failed_by_code.items(), key=lambda item: (-item[1], item[0]))
        ],
        "shards": [
            {"shard": shard, "images": images, "seconds": round(seconds, 3)}
            for shard, (seconds, images) in sorted(breakdown.shards.items(), key=lambda item: -item[1][0])
        ],
    }
    if labels:
        found["labels"] = labels
    if breakdown.scores:
        edges = [round(index / SCORE_BINS, 4) for index in range(SCORE_BINS + 1)]
        found["scores"] = {"edges": edges, "images": list(breakdown.scores)}
    if breakdown.samples:
        found["samples"] = [sample.to_dict() for sample in breakdown.samples]
    return found


def _totals(totals: Totals, ignored_names: int, passed_over: Mapping[str, int]) -> dict[str, Any]:
    values = asdict(totals)
    del values["seconds"], values["counts"]
    by_ending = add_up([totals.passed_over, passed_over])
    return {**values, "ignored": totals.ignored + ignored_names, "passed_over": by_ending}


def _rounded(value: Any) -> Any:
    """Returns the value with every float rounded to thousandths, also inside nested mappings and lists."""
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return round(value, 3) if isinstance(value, float) else value
