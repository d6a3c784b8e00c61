"""The flags that every job has, and the configs of the pipeline that are made from these flags."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn, get_args

from jobs.cli.size_flags import add_size_flags, size_policy, size_request
from model.network.config import VARIANTS
from pipeline.chunks.task import Task
from pipeline.cluster.config import ComputeConfig
from pipeline.config.job_config import BoundsConfig, JobConfig
from pipeline.config.precision import Precision
from pipeline.errors import EXIT_CODES, ConfigError
from pipeline.inputs.config import InputConfig
from pipeline.inputs.formats import format_choices
from pipeline.inputs.names import NameFilter
from pipeline.output.config import OutputConfig
from pipeline.store.config import StoreConfig
from pipeline.store.object_info import unix_s
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri

_DEFAULT = "default: %(default)s"
_INCLUDE_HELP = (
    "images to take; default: names with an image ending. A glob that ends in .tar, .tgz, .tar.gz or .parquet chooses "
    "shards instead. Repeatable"
)
_INCLUDE_ALSO_HELP = "images to take in addition, such as '*.img'; repeatable. Belongs to the output, as --include does"
_WEIGHTS_HELP = (
    "checkpoint of transformers, timm or the original repository: a folder, a file (.safetensors, .pth, .pt, .bin, "
    ".ckpt or .pth.tar), or a model on the Hub"
)
_PRECISION_HELP = (
    "number format of the network; auto: that of the output, or for a new output bf16 if the machine is fast at it, "
    "else fp32; default: %(default)s"
)
_LEASE_HELP = "seconds to wait for another run on this output to end; default: %(default)g"
_DEADLINE_HELP = (
    "seconds for which a request to a store that does not answer, or is busy, is repeated; default: %(default)g"
)
_NO_PROGRESS_HELP = "end with exit 9 if nothing arrives or is published for so many seconds; default: %(default)g"
_SINCE_HELP = "a date, or date and time: objects last modified before it that are not begun are left to other runs"
_MAX_IMAGES_HELP = "plan N images at most, and end with exit 9 if more are left: the next run goes on"
_MAX_HOURS_HELP = "end with exit 9 after so many hours, with what is whole by then; the next run goes on"
_CALIBRATE_HELP = (
    "with --dry-run: if no earlier run shows the pace, try the job for a minute; nothing of the trial is kept"
)
_THUMBNAILS_HELP = "images of which the report shows thumbnails, a sample; default: none"
_NOTIFY_HELP = "webhook that is notified at the end of the run; default: PVTV2_NOTIFY_URL, else none"
NO_TOKEN_HELP = (
    "use a Ray cluster on other machines even if it asks for no token: anyone who reaches it can run code there"
)
_PRICE_HELP = "price of one actor's machine or GPU, in any money: the report then says what a million images cost"


class Parser(argparse.ArgumentParser):
    """An argument parser that raises a `ConfigError`, so that wrong flags end a command as every other error does."""

    def error(self, message: str) -> NoReturn:
        """Raises a `ConfigError` that says what is wrong with the arguments."""
        raise ConfigError(f"{message}; see --help")


def make_parser(
    description: str, *, required: bool = True, policies: Sequence[str] = ("native", "imagenet")
) -> argparse.ArgumentParser:
    """Returns a parser with the flags that every job has; the defaults come from the config dataclasses.

    Args:
        required: True if the command needs `--input`, `--weights` and `--output`.
        policies: Choices of `--preprocess`.
    """
    parser = Parser(
        description=description,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_input_flags(parser.add_argument_group("input"), required)
    _add_output_flags(parser.add_argument_group("output"), required)
    _add_model_flags(parser.add_argument_group("model"), required)
    add_size_flags(parser.add_argument_group("size"), policies)
    run = parser.add_argument_group("run")
    run.add_argument("--device", choices=("auto", "cpu", "cuda"), default=ComputeConfig.device)
    run.add_argument("--num-actors", type=_actors, metavar="N|MIN,MAX", help="infer actors; default: one a CPU or GPU")
    run.add_argument("--ray-address", metavar="ADDR", help="cluster to join; default: RAY_ADDRESS, else a local Ray")
    run.add_argument("--allow-no-token", action="store_true", help=NO_TOKEN_HELP)
    timeout_s = ComputeConfig.no_progress_timeout_s
    run.add_argument("--no-progress-timeout-s", type=float, default=timeout_s, metavar="N", help=_NO_PROGRESS_HELP)
    run.add_argument("--max-images", type=int, metavar="N", help=_MAX_IMAGES_HELP)
    run.add_argument("--max-hours", type=float, metavar="H", help=_MAX_HOURS_HELP)
    run.add_argument("--price-per-hour", type=float, metavar="P", help=_PRICE_HELP)
    run.add_argument("--thumbnails", type=int, default=JobConfig.thumbnails, metavar="N", help=_THUMBNAILS_HELP)
    run.add_argument("--max-failed-fraction", type=float, default=0.1, metavar="F", help="default: %(default)s")
    run.add_argument("--store-deadline-s", type=float, default=StoreConfig.deadline_s, metavar="N", help=_DEADLINE_HELP)
    run.add_argument("--notify-url", metavar="URL", help=_NOTIFY_HELP)
    run.add_argument("--run-id", metavar="ID", help="name of the run's folder; default: the time and a random part")
    run.add_argument("--dry-run", action="store_true", help="report what the run would do, and write nothing")
    run.add_argument("--calibrate", action="store_true", help=_CALIBRATE_HELP)
    run.add_argument("--log-level", choices=("debug", "info", "warning"), default="info")
    return parser


def _add_input_flags(group: Any, required: bool) -> None:
    add = group.add_argument
    add("--input", action="append", required=required, metavar="URI", help="path, s3://, gs:// or az://; repeatable")
    add("--include", action="append", default=[], metavar="GLOB", help=_INCLUDE_HELP)
    add("--include-also", action="append", default=[], metavar="GLOB", help=_INCLUDE_ALSO_HELP)
    add("--exclude", action="append", default=[], metavar="GLOB", help="images and shards to leave out; repeatable")
    add("--input-format", choices=format_choices(), default=InputConfig.format)
    add("--image-column", metavar="NAME", help="Parquet: column with the encoded images; default: found by itself")
    add("--keep-columns", type=_names, default=(), metavar="A,B", help="source columns carried along, as text")
    add("--since", type=_time, metavar="TIME", help=_SINCE_HELP)
    add("--limit", type=int, metavar="N", help="take N records at most; a limited output is one of its own")
    add("--input-profile", metavar="NAME", help="AWS profile for the inputs and the weights")
    add("--input-endpoint-url", metavar="URL", help="S3 endpoint for the inputs and the weights")
    add("--input-anonymous", action="store_true", help="read a public bucket without credentials")


def _add_output_flags(group: Any, required: bool) -> None:
    add = group.add_argument
    add("--output", required=required, metavar="URI", help="folder for the rows: path, s3://, gs:// or az://")
    add("--rows-per-file", type=int, default=OutputConfig.rows_per_file, metavar="N", help=_DEFAULT)
    add("--max-file-mib", type=int, default=OutputConfig.max_file_mib, metavar="N", help=_DEFAULT)
    add("--prune", action="store_true", help="take out the rows of images that are gone from the inputs")
    add("--take-over", action="store_true", help="read again, by the new rules, what older rules read")
    add("--retry-failed", nargs="*", metavar="CODE", help="try failed records again, of these error codes or of all")
    add("--wait-for-lease-s", type=float, default=OutputConfig.wait_for_lease_s, metavar="N", help=_LEASE_HELP)
    add("--output-profile", metavar="NAME", help="AWS profile for the output")
    add("--output-endpoint-url", metavar="URL", help="S3 endpoint for the output")


def _add_model_flags(group: Any, required: bool) -> None:
    add = group.add_argument
    add("--weights", required=required, metavar="PATH|URI|hf://ORG/NAME", help=_WEIGHTS_HELP)
    add("--variant", choices=tuple(VARIANTS), help="which PVTv2; default: what the checkpoint says")
    add("--precision", choices=get_args(Precision), default=JobConfig.precision, help=_PRECISION_HELP)


def add_output_store_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a command that only reads outputs: flags of the outputs' store and of the log level."""
    add = parser.add_argument
    add("--output-profile", metavar="NAME", help="AWS profile for outputs")
    add("--output-endpoint-url", metavar="URL", help="S3 endpoint for outputs")
    add("--store-deadline-s", type=float, default=StoreConfig.deadline_s, metavar="N", help=_DEADLINE_HELP)
    add("--log-level", choices=("debug", "info", "warning"), default="info")


def input_config(flags: argparse.Namespace) -> InputConfig:
    """Returns the config of the inputs; the config checks its values."""
    return InputConfig(
        uris=tuple(flags.input),
        names=NameFilter(
            include=tuple(flags.include), include_also=tuple(flags.include_also), exclude=tuple(flags.exclude)
        ),
        format=flags.input_format,
        image_column=flags.image_column,
        keep_columns=flags.keep_columns,
        limit=flags.limit,
        store=input_store(flags),
    )


def input_store(flags: argparse.Namespace) -> StoreConfig:
    """Returns the account and endpoint of the inputs' store."""
    return StoreConfig(
        profile=flags.input_profile,
        endpoint_url=flags.input_endpoint_url,
        anonymous=flags.input_anonymous,
        deadline_s=flags.store_deadline_s,
    )


def output_config(flags: argparse.Namespace) -> OutputConfig:
    """Returns the config of the output; the config checks its values."""
    return OutputConfig(
        uri=flags.output,
        rows_per_file=flags.rows_per_file,
        max_file_mib=flags.max_file_mib,
        wait_for_lease_s=flags.wait_for_lease_s,
        prune=flags.prune,
        take_over=flags.take_over,
        retry_failed=None if flags.retry_failed is None else frozenset(flags.retry_failed),
        store=output_store(flags),
    )


def output_store(flags: argparse.Namespace) -> StoreConfig:
    """Returns the config of the output's store; the config checks its values."""
    return StoreConfig(
        profile=flags.output_profile, endpoint_url=flags.output_endpoint_url, deadline_s=flags.store_deadline_s
    )


def output_place(text: str, flags: argparse.Namespace) -> StorePath:
    """Returns the URI or local path that a user gave, as a `StorePath` with the settings of the output's store."""
    return StorePath(canonical_uri(text), output_store(flags))


def compute_config(flags: argparse.Namespace) -> ComputeConfig:
    """Returns the config of the machines that do the work; the config checks its values."""
    return ComputeConfig(
        device=flags.device,
        num_actors=flags.num_actors,
        ray_address=flags.ray_address,
        allow_no_token=flags.allow_no_token,
        no_progress_timeout_s=flags.no_progress_timeout_s,
        price_per_hour=flags.price_per_hour,
    )


def bounds_config(flags: argparse.Namespace) -> BoundsConfig:
    """Returns the config of the bounds of a run, which leave work to later runs; the config checks its values."""
    return BoundsConfig(since_s=flags.since, max_images=flags.max_images, max_hours=flags.max_hours)


def job_config(flags: argparse.Namespace, task: Task) -> JobConfig:
    """Returns the config of a whole job; each part checks its values."""
    return JobConfig(
        task=task,
        input=input_config(flags),
        output=output_config(flags),
        weights=flags.weights,
        variant=flags.variant,
        precision=flags.precision,
        size=size_request(flags),
        size_from=flags.size_from,
        sizes=size_policy(flags),
        compute=compute_config(flags),
        bounds=bounds_config(flags),
        max_failed_fraction=flags.max_failed_fraction,
        run_id=flags.run_id,
        dry_run=flags.dry_run,
        calibrate=flags.calibrate,
        thumbnails=flags.thumbnails,
    )


def _actors(text: str) -> tuple[int, int]:
    try:
        parts = [int(part) for part in text.split(",")]
    except ValueError:
        parts = []
    if len(parts) not in (1, 2):
        raise argparse.ArgumentTypeError("must be N or MIN,MAX")
    return parts[0], parts[-1]


def _time(text: str) -> float:
    try:
        return unix_s(text)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"must be a date or a time such as 2026-11-27, 2026-11-27T18:30Z or 2026-11-27T18:30+01:00, not {text!r}"
        ) from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
