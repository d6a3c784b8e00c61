"""Compares two labelled outputs of the same images, such as before and after a change of the model or of a setting.

    python jobs/diff_labels.py s3://bucket/labels-b0 s3://bucket/labels-b2 --report s3://bucket/b0-b2

The labels are those of the networks, without corrections by people. The last line of stdout is a summary as JSON.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Python puts the folder of a script on the path of modules, but not the folder that holds the packages.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.cli.command import configure_logging, run_command
from jobs.cli.flags import Parser, add_output_store_flags, output_place
from jobs.cli.printable import printable
from pipeline.dataset.compare import DIFFERENCE_SCHEMA, compare, differences
from pipeline.dataset.database import open_database
from pipeline.dataset.dataset_file import to_parquet
from pipeline.errors import OutputError
from pipeline.evaluation.predictions import open_predictions
from pipeline.store.errors import StoreError

DIFF_FILE, ROWS_FILE = "diff.json", "diff.parquet"
_PRINTED = (
    "images",
    "only_a",
    "only_b",
    "other_source",
    "other_status",
    "labelled_by_both",
    "flipped",
    "agreement",
    "labels_psi",
)


def diff_labels(arguments: Sequence[str], _: object = None) -> dict[str, Any]:
    """Compares the outputs; returns the summary."""
    started_at = time.time()
    flags = _parser().parse_args(arguments)
    configure_logging(flags.log_level)
    a, b = (open_predictions(output_place(text, flags)) for text in (flags.a, flags.b))
    folder = output_place(flags.report, flags) if flags.report else None
    with open_database() as database:
        found = {"a": a.output.shown, "b": b.output.shown, **compare(database, a, b)}
        if folder is not None:
            try:
                folder.join(ROWS_FILE).put(to_parquet(lambda: differences(database), DIFFERENCE_SCHEMA, {}))
                folder.join(DIFF_FILE).put(json.dumps(found, indent=1).encode())
            except StoreError as error:
                raise OutputError(f"{folder.shown} cannot be written: {error}") from error
    print(_table(found))
    return {
        "status": "done",
        **{name: found[name] for name in ("a", "b", *_PRINTED)},
        "report": None if folder is None else folder.join(DIFF_FILE).shown,
        "seconds": round(time.time() - started_at, 1),
        "exit_code": 0,
    }


def _table(found: dict[str, Any]) -> str:
    """Returns the figures and the most frequent changes of a label, as text."""
    lines = [(name.replace("_", " "), "-" if found[name] is None else f"{found[name]:,}") for name in _PRINTED]
    lines += [(printable(f"{flip['label_a']} -> {flip['label_b']}"), f"{flip['images']:,}") for flip in found["flips"]]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in lines)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("a", metavar="A", help="the --output of a classification, path, s3://, gs:// or az://")
    add("b", metavar="B", help="another one")
    add("--report", metavar="URI", help=f"folder for {DIFF_FILE}, and {ROWS_FILE} with every row that differs")
    add_output_store_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(diff_labels, sys.argv[1:]))
