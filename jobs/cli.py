"""What the commands share: flags, logging, progress, the last line and the exit code."""

import argparse
import json
import logging
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from model.config import VARIANTS
from model.errors import CheckpointError
from pipeline.config import ComputeConfig, InputConfig, OutputConfig
from pipeline.errors import AccountsError, ConfigError, IncompleteError, PipelineError, StoppedError, TooManyFailedError
from pipeline.lease import Lease, LeaseTiming
from pipeline.names import NameFilter
from pipeline.prepare import Run
from pipeline.report import Report
from pipeline.sizes import SizePolicy
from pipeline.stopper import Stopper
from pipeline.storage import StoreConfig
from pipeline.uris import shown
from pipeline.watch import Progress

logger = logging.getLogger(__name__)

EXIT_CODES = """exit codes:
  0 done                          5 output: belongs to another job, or cannot be written
  1 internal error                6 too many failed records (--max-failed-fraction)
  2 bad configuration             7 accounts do not close
  3 input missing or empty        9 incomplete: stopped, stalled; the same command continues
  4 model or weights             10 another run holds the output (--wait-for-lease-s)"""
_DEFAULT = "default: %(default)s"
_INCLUDE_HELP = (
    "images to take; default: names with an image ending. A glob that ends in .tar, .tgz, .tar.gz or .parquet chooses "
    "shards instead. Repeatable"
)
_WEIGHTS_HELP = (
    "checkpoint of transformers, timm or the original repository: a folder, a .safetensors, .pth or .bin file, or a "
    "model on the Hub"
)
_SMALL_HELP = "images with a side under 32 px; default: %(default)s"
_LEASE_HELP = "seconds to wait for another run on this output to end; default: %(default)g"
_DEADLINE_HELP = (
    "seconds for which a request to a store that does not answer, or is busy, is repeated; default: %(default)g"
)
_NO_PROGRESS_HELP = "end with exit 9 if nothing arrives or is published for so many seconds; default: %(default)g"
_CHECKPOINT_EXIT = 4
_LINE_EVERY_S = 10.0


class _Parser(argparse.ArgumentParser):
    """argparse, with its errors turned into ours: the last line and the exit code are the same for all of them."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")


def make_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the flags that every job has; defaults are those of the config dataclasses."""
    parser = _Parser(
        description=description,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_input_flags(parser.add_argument_group("input"))
    _add_output_flags(parser.add_argument_group("output"))
    _add_model_flags(parser.add_argument_group("model"))
    run = parser.add_argument_group("run")
    run.add_argument("--device", choices=("auto", "cpu", "cuda"), default=ComputeConfig.device)
    run.add_argument("--num-actors", type=_actors, metavar="N|MIN,MAX", help="infer actors; default: one a CPU or GPU")
    run.add_argument("--ray-address", metavar="ADDR", help="cluster to join; default: RAY_ADDRESS, else a local Ray")
    timeout_s = ComputeConfig.no_progress_timeout_s
    run.add_argument("--no-progress-timeout-s", type=float, default=timeout_s, metavar="N", help=_NO_PROGRESS_HELP)
    run.add_argument("--max-failed-fraction", type=float, default=0.1, metavar="F", help="default: %(default)s")
    run.add_argument("--store-deadline-s", type=float, default=StoreConfig.deadline_s, metavar="N", help=_DEADLINE_HELP)
    run.add_argument("--run-id", metavar="ID", help="name of the run's folder; default: the time and a random part")
    run.add_argument("--dry-run", action="store_true", help="say what would be done, and write nothing")
    run.add_argument("--log-level", choices=("debug", "info", "warning"), default="info")
    return parser


def _add_input_flags(group: Any) -> None:
    add = group.add_argument
    add("--input", action="append", required=True, metavar="URI", help="path, s3://, gs:// or az://; repeatable")
    add("--include", action="append", default=[], metavar="GLOB", help=_INCLUDE_HELP)
    add("--exclude", action="append", default=[], metavar="GLOB", help="images and shards to leave out; repeatable")
    add("--input-format", choices=("auto", "tar", "parquet", "files"), default=InputConfig.format)
    add("--image-column", metavar="NAME", help="Parquet: column with the encoded images; default: found by itself")
    add("--keep-columns", type=_names, default=(), metavar="A,B", help="source columns carried along, as text")
    add("--limit", type=int, metavar="N", help="take N records at most; a limited output is one of its own")
    add("--input-profile", metavar="NAME", help="AWS profile for the inputs and the weights")
    add("--input-endpoint-url", metavar="URL", help="S3 endpoint for the inputs and the weights")
    add("--input-anonymous", action="store_true", help="read a public bucket without credentials")


def _add_output_flags(group: Any) -> None:
    add = group.add_argument
    add("--output", required=True, metavar="URI", help="folder for the rows: path, s3://, gs:// or az://")
    add("--rows-per-file", type=int, default=OutputConfig.rows_per_file, metavar="N", help=_DEFAULT)
    add("--max-file-mib", type=int, default=OutputConfig.max_file_mib, metavar="N", help=_DEFAULT)
    add("--prune", action="store_true", help="take out the rows of images that are gone from the inputs")
    add("--retry-failed", nargs="*", metavar="CODE", help="try failed records again, of these error codes or of all")
    add("--wait-for-lease-s", type=float, default=OutputConfig.wait_for_lease_s, metavar="N", help=_LEASE_HELP)
    add("--output-profile", metavar="NAME", help="AWS profile for the output")
    add("--output-endpoint-url", metavar="URL", help="S3 endpoint for the output")


def _add_model_flags(group: Any) -> None:
    add = group.add_argument
    add("--weights", required=True, metavar="PATH|URI|hf://ORG/NAME", help=_WEIGHTS_HELP)
    add("--variant", choices=tuple(VARIANTS), help="which PVTv2; default: what the checkpoint says")
    add("--labels", metavar="FILE", help="names of the classes, one a line or JSON; default: the checkpoint's")
    add("--max-image-pixels", type=int, default=SizePolicy.max_image_pixels, metavar="N", help=_DEFAULT)
    add("--large-images", choices=("downscale", "reject"), default=SizePolicy.large_images, help=_DEFAULT)
    add("--small-images", choices=("upscale", "reject"), default=SizePolicy.small_images, help=_SMALL_HELP)


def input_config(flags: argparse.Namespace) -> InputConfig:
    """The input flags, checked."""
    return InputConfig(
        uris=tuple(flags.input),
        names=NameFilter(include=tuple(flags.include), exclude=tuple(flags.exclude)),
        format=flags.input_format,
        image_column=flags.image_column,
        keep_columns=flags.keep_columns,
        limit=flags.limit,
        store=StoreConfig(
            profile=flags.input_profile,
            endpoint_url=flags.input_endpoint_url,
            anonymous=flags.input_anonymous,
            deadline_s=flags.store_deadline_s,
        ),
    )


def output_config(flags: argparse.Namespace) -> OutputConfig:
    """The output flags, checked."""
    return OutputConfig(
        uri=flags.output,
        rows_per_file=flags.rows_per_file,
        max_file_mib=flags.max_file_mib,
        wait_for_lease_s=flags.wait_for_lease_s,
        prune=flags.prune,
        retry_failed=None if flags.retry_failed is None else frozenset(flags.retry_failed),
        store=StoreConfig(
            profile=flags.output_profile,
            endpoint_url=flags.output_endpoint_url,
            deadline_s=flags.store_deadline_s,
        ),
    )


def output_lease(config: OutputConfig, run_id: str) -> Lease:
    """The lease of a run on its output, not taken yet; when it is lost, the run is ended as by SIGTERM.

    A run is at least as patient with its lease as with the output's store.
    """
    timing = LeaseTiming(expiry_s=max(LeaseTiming.expiry_s, config.store.deadline_s))
    return Lease(config.uri, config.store, run_id, timing, on_lost=_stop_main_thread)


def compute_config(flags: argparse.Namespace) -> ComputeConfig:
    """The flags that say where the work is done, checked."""
    return ComputeConfig(
        device=flags.device,
        num_actors=flags.num_actors,
        ray_address=flags.ray_address,
        no_progress_timeout_s=flags.no_progress_timeout_s,
    )


def size_policy(flags: argparse.Namespace) -> SizePolicy:
    """The flags for images that are too large or too small, checked."""
    try:
        return SizePolicy(
            max_image_pixels=flags.max_image_pixels, large_images=flags.large_images, small_images=flags.small_images
        )
    except ValueError as error:
        raise ConfigError(f"--max-image-pixels: {error}") from error


def print_plan(run: Run) -> None:
    """A line for each shard that a run would read: what is done with it, its format, records, MiB and URI."""
    for shard in run.plan.rows:
        records = "?" if shard.num_todo is None else f"{shard.num_todo:,}"
        size = f"{shard.size / 2**20:,.1f} MiB"
        print(f"{shard.action:8}  {shard.format:7}  {records:>9}  {size:>14}  {shown(shard.shard)}")
    for entry in run.plan.summary.emptied:
        file = entry.file
        print(f"{'empty':8}  {'':7}  {file.rows:>9,}  {'':>14}  {shown(file.shard)} slice {file.slice}")


def run_command(command: Callable[[Sequence[str]], dict[str, Any]], arguments: Sequence[str]) -> int:
    """Runs a command; its summary becomes the last line of stdout, its errors become sentences and exit codes.

    Args:
        command: arguments -> summary; the summary's `exit_code` is the process'.
    """
    # Never taken away: a signal that comes while the process ends changes neither its last line nor its exit code.
    stopper = Stopper()
    stopper.install()
    try:
        summary = command(arguments)
    except PipelineError as error:
        summary = _failure(error, error.exit_code)
    except CheckpointError as error:
        summary = _failure(error, _CHECKPOINT_EXIT)
    except KeyboardInterrupt:
        summary = _failure(StoppedError("stopped before the work began"), StoppedError.exit_code)
    except Exception as error:
        logger.debug("internal error", exc_info=True)
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{frame.name}, line {frame.lineno}"
        what = f"internal error: {type(error).__name__}: {error} ({where}); --log-level debug tells more"
        summary = _failure(PipelineError(what), PipelineError.exit_code)
    finally:
        stopper.close()
    print(json.dumps(summary), flush=True)
    return int(summary["exit_code"])


def _failure(error: Exception, exit_code: int) -> dict[str, Any]:
    message = " ".join(str(error).split())
    print(f"error: {message}", file=sys.stderr, flush=True)
    return {
        "status": "stopped" if isinstance(error, StoppedError) else "failed",
        "exit_code": exit_code,
        "error": message,
    }


def _stop_main_thread() -> None:
    # A signal, as if from outside: the main thread may be waiting in a system call.
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def verdict(report: Report, max_failed_fraction: float) -> PipelineError | None:
    """The error that a finished run comes to; None if all is well."""
    if report.problems:
        more = f" (and {len(report.problems) - 3} more)" if len(report.problems) > 3 else ""
        return AccountsError(f"the accounts do not close: {'; '.join(report.problems[:3])}{more}")
    if report.status != "done":
        why = f"{report.status}: {report.reason}" if report.reason else report.status
        return IncompleteError(f"{why}; the rows published so far are whole, the same command continues")
    # Divided: a product with a fraction such as 0.29 may lie just below the whole number that it stands for.
    if report.run.listed and report.run.failed / report.run.listed > max_failed_fraction:
        return TooManyFailedError(
            f"{report.run.failed} of {report.run.listed} records failed ({dict(report.run.failed_by_code)}), more than "
            f"--max-failed-fraction {max_failed_fraction:g}; every one of them has its row"
        )
    return None


def configure_logging(level: str) -> None:
    """Sends log lines to stderr; libraries speak up only when something is wrong."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"
    )
    for package in ("jobs", "pipeline", "model", "__main__"):
        logging.getLogger(package).setLevel(level.upper())


class ProgressDisplay:
    """A progress bar on a terminal, one log line every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._last_line = self._started
        self._is_terminal = sys.stderr.isatty()

    def __call__(self, progress: Progress) -> None:
        """Shows where the run stands."""
        now = time.monotonic()
        rate = progress.rows / max(now - self._started, 1e-9)
        share = f"/{progress.total}" if progress.total is not None else ""
        text = f"{progress.rows}{share} images, {progress.failed} failed, {progress.files} files, {rate:.1f} images/s"
        if self._is_terminal:
            width = 24
            done = 0 if not progress.total else min(width, width * progress.rows // progress.total)
            bar = "#" * done + "-" * (width - done) if progress.total else "." * width
            print(f"\r[{bar}] {text}\x1b[K", end="", file=sys.stderr, flush=True)
        elif now - self._last_line >= _LINE_EVERY_S:
            self._last_line = now
            logger.info("progress %s", text)

    def close(self) -> None:
        """Leaves the bar's line."""
        if self._is_terminal:
            print(file=sys.stderr, flush=True)


def _actors(text: str) -> tuple[int, int]:
    try:
        parts = [int(part) for part in text.split(",")]
    except ValueError:
        parts = []
    if len(parts) not in (1, 2):
        raise argparse.ArgumentTypeError("must be N or MIN,MAX")
    return parts[0], parts[-1]


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
