"""Extracts a PVTv2's features of images at their native size; one Parquet row for every image.

    python jobs/extract_features.py --input s3://bucket/photos --weights s3://bucket/pvt_v2_b2 --output s3://bucket/features

The embedding is the mean of the last map; `--stages` adds the maps themselves. The last line of stdout is the run's
summary as JSON; logs go to stderr.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Python puts the folder of a script on the path of modules, but not the folder that holds the packages.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.cli.command import run_command
from jobs.cli.flags import make_parser
from jobs.cli.run_job import run_job
from pipeline.chunks.task import ExtractFeatures
from pipeline.run.stopper import Stopper


def extract_features(arguments: Sequence[str], stopper: Stopper | None = None) -> dict[str, Any]:
    """Runs the job; returns its summary."""
    parser = make_parser((__doc__ or "").partition("\n")[0])
    features = parser.add_argument_group("features").add_argument
    features(
        "--feature-dtype", choices=("float16", "float32"), default=ExtractFeatures.dtype, help="default: %(default)s"
    )
    features("--l2-normalize", action="store_true", help="scale every embedding to length 1")
    features("--stages", type=_stages, default=(), metavar="1,2,3,4", help="maps to store, at strides 4, 8, 16 and 32")
    return run_job(parser, arguments, _task, stopper)


def _task(flags: argparse.Namespace) -> ExtractFeatures:
    return ExtractFeatures(dtype=flags.feature_dtype, l2_normalize=flags.l2_normalize, stages=flags.stages)


def _stages(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError("must be some of 1,2,3,4") from None


if __name__ == "__main__":
    sys.exit(run_command(extract_features, sys.argv[1:]))
