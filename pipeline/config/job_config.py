"""What one run is asked to do: frozen dataclasses, checked once here and trusted afterwards."""

from dataclasses import dataclass, field

from model.checkpoints.hub import is_hub
from pipeline.chunks.sample import MOST_SAMPLES
from pipeline.chunks.size_policy import SizePolicy
from pipeline.chunks.task import Task
from pipeline.cluster.config import ComputeConfig
from pipeline.config.precision import Precision
from pipeline.errors import ConfigError
from pipeline.inputs.config import InputConfig
from pipeline.output.config import OutputConfig
from pipeline.store.uris import canonical_uri


@dataclass(frozen=True, kw_only=True)
class BoundsConfig:
    """What one run takes on of all that there is to do; a later run without these bounds does the rest.

    They are no part of the output's identity.

    Attributes:
        since_s: objects last modified before this, in Unix seconds, are not begun.
        max_images: records that are planned, about: tars, Parquet objects and groups that are begun are taken whole.
        max_hours: hours from the start of the program after which the run ends itself.
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
    """One run, whole.

    Attributes:
        task: what is asked of the network for each image.
        weights: canonical URI of the checkpoint, a folder or one file; or `hf://org/name[@revision]`.
        variant: which PVTv2, where the checkpoint has no config that says it.
        precision: of the network's numbers; `auto` takes the output's, or for a new one what the machine is good at.
        sizes: what is done with images that are too small or too large.
        bounds: how much of the work this run does.
        max_failed_fraction: failed / listed above which the run exits 6.
        run_id: name of this run's folder in the output.
        dry_run: plan and say what would be done; write nothing.
        calibrate: let a dry run try the job on a part of the plan, where no earlier run tells how fast it is.
        thumbnails: how many images the report shows; none unless it is asked for, since they are the user's data.
    """

    task: Task
    input: InputConfig
    output: OutputConfig
    weights: str
    variant: str | None = None
    precision: Precision = "auto"
    sizes: SizePolicy = field(default_factory=SizePolicy)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    bounds: BoundsConfig = field(default_factory=BoundsConfig)
    max_failed_fraction: float = 0.1
    run_id: str | None = None
    dry_run: bool = False
    calibrate: bool = False
    thumbnails: int = 0

    def __post_init__(self) -> None:
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
    """True for what may be one folder's name: `..` would be another folder."""
    return text != "" and text[0] != "." and all(c.isalnum() or c in "-_." for c in text)
