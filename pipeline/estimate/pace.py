"""How fast a job goes: what the report of a run says of its start, its end and the time between."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config.identity import reported_identity
from pipeline.errors import InputError
from pipeline.output.layout import REPORT_FILE
from pipeline.output.past_runs import files_of_runs, read_report
from pipeline.run.run import Run

logger = logging.getLogger(__name__)

# A steady part of so many seconds is taken over a later run's that was shorter: small nights tell little of large ones.
LONG_S = 10.0
# Reports that are read in search of one.
_MOST_REPORTS = 30


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a run was.

    Attributes:
        run_id: which one.
        fixed_s: from the start of the program to the first row, and from the end of the network's work to the report;
            of a run that was ended early only the former, since it ended in the middle of work that it let go.
        steady_s: how long its steady part was.
        gmac_per_s: all actors' in that time.
        num_actors: how many it had at most.
    """

    run_id: str
    fixed_s: float
    steady_s: float
    gmac_per_s: float
    num_actors: int

    def seconds(self, gmac: float) -> float:
        """What a run of so many giga-MACs takes at this pace."""
        return self.fixed_s + gmac / self.gmac_per_s


def pace_of(report: Mapping[str, Any]) -> Pace | None:
    """The pace of a run by its report, as `report.json` holds it; None if it had no steady part.

    Raises:
        KeyError, TypeError: it is no report, or that of an older version.
    """
    steady, seconds = report["rates"]["steady"], report["seconds"]
    if not steady or not steady["gmac_per_s"] > 0:
        return None
    drain_s = seconds["drain"] if report["status"] == "done" else None
    return Pace(
        run_id=report["run_id"],
        fixed_s=(seconds["first_row"] or 0.0) + (drain_s or 0.0),
        steady_s=seconds["steady"] or 0.0,
        gmac_per_s=steady["gmac_per_s"],
        num_actors=report["actors"].get("max") or 1,
    )


def last_pace(run: Run) -> Pace | None:
    """The pace of the last run of this very job whose steady part was long; else of the one where it was longest.

    Reports of another identity are passed over: other weights, precision or size policies have a pace of their own.
    """
    output, store, wanted = run.config.output.uri, run.config.output.store, reported_identity(run.identity)
    longest: Pace | None = None
    for info in reversed(files_of_runs(output, store, REPORT_FILE)[-_MOST_REPORTS:]):
        try:
            report = read_report(info.uri, store)
            if report["identity"] != wanted:
                logger.info("pace.of_another_job report=%s", info.uri)
                continue
            pace = pace_of(report)
        except (KeyError, TypeError, InputError) as error:
            logger.debug("pace.report_left_out uri=%s error=%s", info.uri, error)  # written by an older version, mostly
            continue
        if pace is not None and (longest is None or pace.steady_s > longest.steady_s):
            longest = pace
            if pace.steady_s >= LONG_S:
                break
    return longest
