"""Runs the drills of many seeds, and says what came of them.

    python -m tests.chaos.chaos --seeds 50           # 0..49
    python -m tests.chaos.chaos --seed 17            # that one alone

Exit code 1 if a row was lost, doubled or wrong, or anything else was not as it must be; the seeds are named.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.chaos.drill import Outcome, run_drill
from tests.chaos.ground import prepared_ground
from tests.chaos.schedule import drill_of


def main(arguments: Sequence[str]) -> int:
    """Runs what is asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--seeds", type=int, default=50, metavar="N", help="run the seeds 0 to N-1; default: %(default)s"
    )
    parser.add_argument("--first", type=int, default=0, metavar="N", help="begin with this seed")
    parser.add_argument("--seed", type=int, metavar="N", help="run this seed alone")
    parser.add_argument("--minutes", type=float, metavar="N", help="begin no further seed after so many minutes")
    parser.add_argument("--report", type=Path, default=Path("chaos.json"), metavar="FILE", help="default: %(default)s")
    flags = parser.parse_args(arguments)
    seeds = range(flags.first, flags.seeds) if flags.seed is None else [flags.seed]
    # So that SIGTERM too ends what was started here.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    print(f"logs are in {folder}", flush=True)
    outcomes: dict[int, Outcome] = {}
    with prepared_ground(folder) as ground:
        print(f"undisturbed run: {ground.undisturbed_s:.0f} s", flush=True)
        for seed in seeds:
            if flags.minutes is not None and time.monotonic() - started > 60 * flags.minutes:
                break
            outcomes[seed] = run_drill(drill_of(seed), ground, seed)
            print(line_of(outcomes[seed]), flush=True)
            flags.report.write_text(json.dumps(report_of(outcomes), indent=1))
    report = report_of(outcomes)
    print(table_of(report))
    for seed in report["failed_seeds"]:
        print(f"make chaos SEED={seed}: {'; '.join(outcomes[seed].problems)}")
    return 1 if report["failed_seeds"] or not outcomes else 0


def line_of(outcome: Outcome) -> str:
    """One line for one drill."""
    struck = ", ".join([*outcome.kills, *(f"{fault} x{times}" for fault, times in outcome.faults.items())])
    missed = f"; missed: {'; '.join(outcome.missed)}" if outcome.missed else ""
    verdict = "right" if outcome.is_right else f"WRONG: {'; '.join(outcome.problems)}"
    how = f"{outcome.name:18} {outcome.seconds:5.0f} s, exits {outcome.codes}"
    return f"{how}: {verdict}; {struck or 'nothing struck'}{missed}"


def report_of(outcomes: dict[int, Outcome]) -> dict[str, Any]:
    """All outcomes, summed."""
    all_compared = [compared for outcome in outcomes.values() for compared in outcome.compared]
    listed = sum(outcome.rows_listed for outcome in outcomes.values())
    read = sum(outcome.rows_read for outcome in outcomes.values())
    kills = sum((outcome.kills for outcome in outcomes.values()), Counter[str]())
    faults = sum((outcome.faults for outcome in outcomes.values()), Counter[str]())
    return {
        "seeds": len(outcomes),
        "failed_seeds": [seed for seed, outcome in outcomes.items() if not outcome.is_right],
        "outputs_compared": len(all_compared),
        "rows_compared": sum(compared.rows for compared in all_compared),
        "rows_lost": sum(compared.lost for compared in all_compared),
        "rows_doubled": sum(compared.doubled for compared in all_compared),
        "rows_wrong": sum(compared.wrong for compared in all_compared),
        "kills": dict(sorted(kills.items())),
        "faults": dict(sorted(faults.items())),
        "missed": sum(len(outcome.missed) for outcome in outcomes.values()),
        "attempts": sum(outcome.attempts for outcome in outcomes.values()),
        "rows_listed": listed,
        "rows_read_again": round(max(0.0, read - listed)),
        "work_redone": round(max(0.0, read - listed) / listed, 3) if listed else 0.0,
        "seconds": round(sum(outcome.seconds for outcome in outcomes.values())),
    }


def table_of(report: dict[str, Any]) -> str:
    """The report as a table in Markdown."""
    lines = ["| what | count |", "| --- | --- |"]
    for name, value in report.items():
        if name in ("failed_seeds", "seconds"):
            continue
        if isinstance(value, dict):
            lines += [f"| {name}: {kind} | {count} |" for kind, count in value.items()]
        else:
            lines.append(f"| {name.replace('_', ' ')} | {value} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
