"""Classifies images with a PVTv2 at their native size; one Parquet row for every image.

    python jobs/classify.py --input s3://bucket/photos --weights s3://bucket/pvt_v2_b0 --output s3://bucket/labels

The last line of stdout is the run's summary as JSON; logs go to stderr.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Run as a script, Python puts this file's folder on the path, not the one that holds the packages.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.cli import (
    ProgressDisplay,
    compute_config,
    configure_logging,
    input_config,
    make_parser,
    output_config,
    output_lease,
    print_plan,
    run_command,
    size_policy,
    verdict,
)
from pipeline.close import summarise
from pipeline.config import ClassifyConfig
from pipeline.layout import new_run_id
from pipeline.prepare import describe_plan, prepare
from pipeline.run import execute


def classify(arguments: Sequence[str]) -> dict[str, Any]:
    """Runs the job; returns its summary."""
    started_at = time.time()
    parser = make_parser((__doc__ or "").partition("\n")[0])
    parser.add_argument("--top-k", type=int, default=ClassifyConfig.top_k, metavar="K", help="default: %(default)s")
    flags = parser.parse_args(arguments)
    configure_logging(flags.log_level)
    run_id = flags.run_id or new_run_id(started_at)
    config = ClassifyConfig(
        input=input_config(flags),
        output=output_config(flags),
        weights=flags.weights,
        variant=flags.variant,
        labels=flags.labels,
        top_k=flags.top_k,
        sizes=size_policy(flags),
        compute=compute_config(flags),
        max_failed_fraction=flags.max_failed_fraction,
        run_id=run_id,
        dry_run=flags.dry_run,
    )
    with output_lease(config.output, run_id) as lease:
        run = prepare(config, started_at, lease)
        if config.dry_run:
            print_plan(run)
            return {**describe_plan(run), "status": "planned", "exit_code": 0}
        display = ProgressDisplay()
        try:
            report = execute(run, display)
        finally:
            display.close()
    error = verdict(report, config.max_failed_fraction)
    if error is not None:
        print(f"error: {error}", file=sys.stderr, flush=True)
    return {**summarise(run, report), "exit_code": 0 if error is None else error.exit_code}


if __name__ == "__main__":
    sys.exit(run_command(classify, sys.argv[1:]))
