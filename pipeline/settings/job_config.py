"""What one run is asked to do: frozen dataclasses, checked once here and trusted afterwards."""

from dataclasses import dataclass, field
from typing import Literal

from model.checkpoints.hub import is_hub
from pipeline.chunks.sample import MOST_SAMPLES
from pipeline.chunks.size_policy import SizePolicy
from pipeline.chunks.task import Task
from pipeline.errors import ConfigError, ErrorCode
from pipeline.inputs.names import NameFilter
from pipeline.settings.precision import Precision
from pipeline.store.storage import StoreConfig
from pipeline.store.uris import canonical_uri

InputFormat = Literal["auto", "tar", "parquet", "files"]
Device = Literal["auto", "cpu", "cuda"]

CHUNK_MAX_RECORDS = 128
# Size at which a chunk ends: decoded, or encoded where that is more. Small enough that one CPU actor answers within
# seconds and that two actors end a job together; about one hundred images of 224x224, so a GPU still gets a full pack
# out of one chunk.
CHUNK_MAX_BYTES = 16 * 2**20
# Predicted size of a chunk's output rows at which it ends earlier: feature maps are several times their image's pixels.
CHUNK_MAX_OUTPUT_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """Which records are read.

    Attributes:
        uris: canonical URIs of objects, prefixes or folders.
        names: globs that choose images and shards.
        format: which kind of object is taken, by its ending; an object that is itself an input may have any ending.
        image_column: Parquet: the column with the encoded image; None finds it.
        keep_columns: source columns carried into the output, as text.
        limit: read this many records at most; None reads all.
        store: account and endpoint.
    """

    uris: tuple[str, ...]
    names: NameFilter = field(default_factory=NameFilter)
    format: InputFormat = "auto"
    image_column: str | None = None
    keep_columns: tuple[str, ...] = ()
    limit: int | None = None
    store: StoreConfig = field(default_factory=StoreConfig)

    def __post_init__(self) -> None:
        if not self.uris:
            raise ConfigError("no input: give at least one --input URI")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"--limit must be at least 1, not {self.limit}")
        if len(set(self.keep_columns)) != len(self.keep_columns):
            raise ConfigError("--keep-columns names a column twice")
        object.__setattr__(self, "uris", tuple(dict.fromkeys(canonical_uri(uri) for uri in self.uris)))


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Where the rows go.

    Attributes:
        uri: canonical URI of the output folder.
        rows_per_file: rows at which a slice, and so an output file, ends.
        max_file_mib: predicted size at which it ends earlier.
        wait_for_lease_s: how long to wait for another run on this output to end.
        prune: take out the rows of sources that are gone from the inputs.
        retry_failed: error codes whose records are tried again; None: none, empty: every code.
        store: account and endpoint.
    """

    uri: str
    rows_per_file: int = 4096
    max_file_mib: int = 512
    wait_for_lease_s: float = 0.0
    prune: bool = False
    retry_failed: frozenset[str] | None = None
    store: StoreConfig = field(default_factory=StoreConfig)

    def __post_init__(self) -> None:
        if self.rows_per_file < 1:
            raise ConfigError(f"--rows-per-file must be at least 1, not {self.rows_per_file}")
        if self.max_file_mib < 1:
            raise ConfigError(f"--max-file-mib must be at least 1, not {self.max_file_mib}")
        if not 0 <= self.wait_for_lease_s < float("inf"):
            raise ConfigError(f"--wait-for-lease-s must not be negative, not {self.wait_for_lease_s:g}")
        if unknown := sorted((self.retry_failed or frozenset()) - {str(code) for code in ErrorCode}):
            raise ConfigError(
                f"--retry-failed: there is no error code {unknown[0]!r}; choose from {', '.join(map(str, ErrorCode))}"
            )
        object.__setattr__(self, "uri", canonical_uri(self.uri))


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Which machines and processors do the work.

    Attributes:
        device: where the network runs; `auto` takes the GPUs of the cluster if it has any.
        num_actors: (fewest, most) actors; None chooses from the cluster's processors.
        ray_address: cluster to join; None starts a local Ray for this run.
        allow_no_token: join a cluster too that is not on the loopback and asks for no token.
        max_passes: how often missing slices are run again, the careful last pass included.
        no_progress_timeout_s: seconds in which nothing arrives and nothing is published, after which the run ends.
        price_per_hour: of one actor's machine or GPU, in whatever money, for the report.
    """

    device: Device = "auto"
    num_actors: tuple[int, int] | None = None
    ray_address: str | None = None
    allow_no_token: bool = False
    max_passes: int = 3
    no_progress_timeout_s: float = 1800.0
    price_per_hour: float | None = None

    def __post_init__(self) -> None:
        if self.price_per_hour is not None and not 0 <= self.price_per_hour < float("inf"):
            raise ConfigError(f"--price-per-hour must be 0 or more, not {self.price_per_hour:g}")
        if not self.no_progress_timeout_s > 0:
            raise ConfigError(f"--no-progress-timeout-s must be positive, not {self.no_progress_timeout_s:g}")
        if self.num_actors is not None and not 1 <= self.num_actors[0] <= self.num_actors[1]:
            raise ConfigError("--num-actors must be N or MIN,MAX with 1 <= MIN <= MAX")


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
class InferConfig:
    """What the infer step needs besides the weights.

    Attributes:
        config_json, preprocessor_json: the checkpoint's own description, as text; None where it has none.
        variant: which PVTv2, where no description says it.
        labels: a name for each class; None leaves the column `label` null.
        task: what is asked of the network.
        device: `cpu` or `cuda`.
        precision: `fp32`, `bf16` or `fp16`.
    """

    config_json: str | None
    preprocessor_json: str | None
    variant: str | None
    labels: tuple[str, ...] | None
    task: Task
    device: str
    precision: str


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
