"""The pace of a run, read from its report: the seconds of its start and end, and its speed in between."""

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

# A run with a steady part of at least this many seconds is preferred to a newer run with a shorter steady part, because
# a run over few images says little about a long run.
LONG_S = 10.0
# Largest number of reports that are read in search of a pace.
_MOST_REPORTS = 30


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The speed of a run.

    Attributes:
        run_id: name of the run.
        fixed_s: seconds from the start of the program to the first row, and from the end of the network's work to the
            report. The second part is 0 for a run that ended early, because such a run drops its unfinished work.
        steady_s: seconds of the steady part.
        gmac_per_s: giga-MACs per second of all actors in the steady part.
        num_actors: largest number of infer actors of the run.
    """

    run_id: str
    fixed_s: float
    steady_s: float
    gmac_per_s: float
    num_actors: int

    def seconds(self, gmac: float) -> float:
        """Returns the seconds that a run of `gmac` giga-MACs takes at this pace."""
        return self.fixed_s + gmac / self.gmac_per_s


def pace_of(report: Mapping[str, Any]) -> Pace | None:
    """Returns the pace of a run from its report; None if the run had no steady part.

    Args:
        report: content of `report.json`.

    Raises:
        KeyError, TypeError: the mapping is no report, or a report of an older version.
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
    """Returns the pace of the newest run of the same job with a steady part of at least `LONG_S` seconds.

    Without such a run, the pace of the run with the longest steady part is returned; None if no run has a steady part.
    Reports with another identity are skipped, because other weights, precision or size policies have another pace.
    """
    output, wanted = run.config.output.folder, reported_identity(run.identity)
    longest: Pace | None = None
    for info in reversed(files_of_runs(output, REPORT_FILE)[-_MOST_REPORTS:]):
        try:
            report = read_report(output.at(info.uri))
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
