"""Settings of the cluster."""

from dataclasses import dataclass
from typing import Literal

from pipeline.errors import ConfigError

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Settings of the machines and processors that do the work.

    Attributes:
        device: Device of the network; `auto` takes the GPUs of the cluster if it has any.
        num_actors: (smallest, largest) number of infer actors; None derives both from the processors of the cluster.
        ray_address: Address of the cluster to join; None starts a local Ray for this run.
        allow_no_token: True if the run may join a cluster that is not on the loopback and asks for no token.
        max_passes: Largest number of passes, including the careful last pass.
        no_progress_timeout_s: Seconds without an arriving chunk and without a published file after which the run ends.
        price_per_hour: Price of the machine or GPU of one actor, in any currency, for the report.
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
