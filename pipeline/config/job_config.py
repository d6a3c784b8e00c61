"""Settings of one run: frozen dataclasses, checked once here and trusted afterwards."""

from dataclasses import dataclass, field

from model.checkpoints.hub import is_hub
from pipeline.chunks.sample import MOST_SAMPLES
from pipeline.chunks.size_policy import SizePolicy
from pipeline.chunks.task import Task
from pipeline.cluster.config import ComputeConfig
from pipeline.config.precision import Precision
from pipeline.config.size import SizeRequest
from pipeline.errors import ConfigError
from pipeline.inputs.config import InputConfig
from pipeline.output.config import OutputConfig
from pipeline.store.uris import canonical_uri


@dataclass(frozen=True, kw_only=True)
class BoundsConfig:
    """Bounds of the work of one run. A later run without bounds does the rest.

    Bounds are not part of the output's identity.

    Attributes:
        since_s: Time in Unix seconds; objects that were last modified before this time are not started.
        max_images: Approximate number of records that are planned: a tar, Parquet object or group that is started is
            taken completely.
        max_hours: Hours from the start of the program after which the run ends by itself.
    """

    since_s: float | None = None
    max_images: int | None = None
    max_hours: float | None = None

    def __post_init__(self) -> None:
        if self.max_images is not None and self.max_images < 1:
            raise ConfigError(f"--max-images must be at least 1, not {self.max_images}")
        if self.max_hours is not None and not 0 < self.max_hours < float("inf"):
            raise ConfigError(f"--max-hours must be positive, not {self.max_hours:g}")


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    """All settings of one run.

    Attributes:
        task: Task of the network for each image.
        input: The inputs.
        output: The output folder and the size of its files.
        weights: Canonical URI of the checkpoint, a folder or one file; or `hf://org/name[@revision]`.
        variant: Variant of PVTv2, for a checkpoint without `config.json`; None finds the variant from the tensors.
        precision: Floating-point type of the network. `auto` takes the type of the output, or for a new output the type
            that the machine computes fast.
        size: Size of images for the network, as it was asked for, which `prepare` resolves into `sizes`; None keeps
            each image's own size.
        size_from: URI of an evaluation whose chosen size is taken; None takes `size`.
        sizes: Treatment of images that are too small or too large.
        compute: Machines and processors that do the work.
        bounds: Bounds of the work of this run.
        max_failed_fraction: Largest fraction of the listed records that may fail; a run with more failed records exits
            with code 6.
        run_id: Name of the run's folder in the output; None makes a new name.
        dry_run: True plans the run and prints the plan, but writes nothing.
        calibrate: True lets a dry run measure the pace on a part of the plan, if no earlier run has measured the pace.
        thumbnails: Number of images that the report shows. The default is 0, since images are the user's data.
    """

    task: Task
    input: InputConfig
    output: OutputConfig
    weights: str
    variant: str | None = None
    precision: Precision = "auto"
    size: SizeRequest | None = None
    size_from: str | None = None
    sizes: SizePolicy = field(default_factory=SizePolicy)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    bounds: BoundsConfig = field(default_factory=BoundsConfig)
    max_failed_fraction: float = 0.1
    run_id: str | None = None
    dry_run: bool = False
    calibrate: bool = False
    thumbnails: int = 0

    def __post_init__(self) -> None:
        if self.size_from is not None:
            object.__setattr__(self, "size_from", canonical_uri(self.size_from))
            if self.size is not None or self.sizes.preprocess != "native":
                raise ConfigError("--size-from chooses the size: leave --size and --preprocess out")
        if not 0 <= self.max_failed_fraction <= 1:
            raise ConfigError(f"--max-failed-fraction must lie in 0..1, not {self.max_failed_fraction}")
        if self.calibrate and not self.dry_run:
            raise ConfigError(
                "--calibrate measures the pace for the estimate of a --dry-run: give both, or neither to do the work"
            )
        if not 0 <= self.thumbnails <= MOST_SAMPLES:
            raise ConfigError(f"--thumbnails must lie in 0..{MOST_SAMPLES}, not {self.thumbnails}")
        if self.run_id is not None and not _is_plain_name(self.run_id):
            raise ConfigError(
                f"--run-id may hold letters, digits, '-', '_' and, but for its beginning, '.', not {self.run_id!r}"
            )
        if not is_hub(self.weights):
            object.__setattr__(self, "weights", canonical_uri(self.weights))


def _is_plain_name(text: str) -> bool:
    """Returns True for a text that can be the name of one folder; `..` would be another folder."""
    return text != "" and text[0] != "." and all(c.isalnum() or c in "-_." for c in text)
