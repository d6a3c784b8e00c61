"""Lists the rows of an output of an earlier version that are wrong, and the images that have no row there.

    python jobs/list_outdated.py --input s3://bucket/images --output s3://bucket/labels --to wrong.csv

The command reads the output and its inputs, and changes neither. `--take-over` of the job that made the output reads
everything again. The last line of stdout is a summary as JSON; logs go to stderr.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

# Python puts the folder of a script on the path of modules, but not the folder that holds the packages.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.cli.command import configure_logging, run_command
from jobs.cli.flags import Parser, add_output_store_flags, input_store, output_place
from jobs.cli.printable import printable
from pipeline.earlier.earlier_output import open_earlier
from pipeline.earlier.find import WrongRows
from pipeline.earlier.wrong_row import KINDS, WrongRow, write_csv, write_parquet
from pipeline.errors import ConfigError, OutputError
from pipeline.inputs.config import InputConfig
from pipeline.inputs.formats import format_choices
from pipeline.publish.spill import on_disk
from pipeline.store.errors import StoreError

_WRITERS = {".csv": write_csv, ".parquet": write_parquet}
_SHOWN_ROWS = 5
_TO_HELP = "file for all findings, a path or URI that ends in .csv or .parquet; default: only the first are printed"


def list_outdated(arguments: Sequence[str], _: object = None) -> dict[str, Any]:
    """Lists the findings; returns the summary."""
    started_at = time.time()
    flags = _parser().parse_args(arguments)
    configure_logging(flags.log_level)
    if flags.to and Path(flags.to).suffix not in _WRITERS:
        raise ConfigError(f"--to {flags.to}: the name must end in {' or '.join(_WRITERS)}")
    output = output_place(flags.output, flags)
    inputs = InputConfig(uris=tuple(flags.input), format=flags.input_format, store=input_store(flags))
    earlier = open_earlier(output, inputs)
    wrong, table = WrongRows(earlier), _Table()
    if flags.to:
        place = output_place(flags.to, flags)
        try:
            place.put(memoryview(on_disk(lambda sink: _WRITERS[Path(flags.to).suffix](table.counted(wrong), sink))))
        except (StoreError, OSError) as error:
            raise OutputError(f"{place.shown} cannot be written: {error}") from error
    else:
        for _row in table.counted(wrong):
            pass
    print(table.text())
    return {
        "status": "done",
        "output": output.shown,
        "files_of_earlier_rules": len(earlier.earlier),
        "wrong": {kind: table.counts[kind] for kind in KINDS},
        "not_compared": wrong.not_compared,
        "list": place.shown if flags.to else None,
        "seconds": round(time.time() - started_at, 1),
        "exit_code": 0,
    }


class _Table:
    """The number of findings of each kind, and the first findings.

    Attributes:
        counts: number of findings by kind.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._first: dict[str, list[WrongRow]] = {kind: [] for kind in KINDS}

    def counted(self, found: Iterable[WrongRow]) -> Iterator[WrongRow]:
        """Yields the findings, and counts them."""
        for row in found:
            self.counts[row.kind] += 1
            if len(self._first[row.kind]) < _SHOWN_ROWS:
                self._first[row.kind].append(row)
            yield row

    def text(self) -> str:
        """Returns a line for each kind, each followed by its first findings."""
        lines = []
        for kind in KINDS:
            lines.append(f"{kind:<12}{self.counts[kind]:>12,}")
            lines += [f"  {printable(_line(row))}" for row in self._first[kind]]
            if self.counts[kind] > _SHOWN_ROWS:
                lines.append(f"  ... and {self.counts[kind] - _SHOWN_ROWS:,} more")
        return "\n".join(lines)


def _line(row: WrongRow) -> str:
    changed = f": {row.before!r} -> {row.now!r}" if row.kind in ("label", "id") else ""
    return f"{row.image_id}{changed} ({row.reason})"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("--output", required=True, metavar="URI", help="the --output of a job: path, s3://, gs:// or az://")
    add("--input", action="append", required=True, metavar="URI", help="an --input of that job; repeatable")
    add("--input-format", choices=format_choices(), default=InputConfig.format, help="as that job had it")
    add("--to", metavar="FILE", help=_TO_HELP)
    add("--input-profile", metavar="NAME", help="AWS profile for the inputs")
    add("--input-endpoint-url", metavar="URL", help="S3 endpoint for the inputs")
    add("--input-anonymous", action="store_true", help="read a public bucket without credentials")
    add_output_store_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(list_outdated, sys.argv[1:]))
