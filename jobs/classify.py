"""Classifies images with a PVTv2 at their native size; one Parquet row for every image.

    python jobs/classify.py --input s3://bucket/photos --weights s3://bucket/pvt_v2_b0 --output s3://bucket/labels

The last line of stdout is the run's summary as JSON; logs go to stderr.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Python puts the folder of a script on the path of modules, but not the folder that holds the packages.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.cli.command import run_command
from jobs.cli.flags import make_parser
from jobs.cli.label_flags import add_label_flags, calibration_of, label_task
from jobs.cli.run_job import run_job
from pipeline.run.stopper import Stopper


def classify(arguments: Sequence[str], stopper: Stopper | None = None) -> dict[str, Any]:
    """Runs the job; returns its summary."""
    parser = make_parser((__doc__ or "").partition("\n")[0])
    add_label_flags(parser)
    return run_job(parser, arguments, lambda flags: label_task(flags, calibration_of(flags)), stopper)


if __name__ == "__main__":
    sys.exit(run_command(classify, sys.argv[1:]))
